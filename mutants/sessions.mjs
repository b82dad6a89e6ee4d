// Sessions and leases: who may call one alive, and until when. See `scripts/mutants.mjs` for the fields.
export default [
  {
    name: "a keep-alive is confirmed without proof of leadership",
    file: "replica/replica.ts",
    find: "    this.read(\n      {\n        onReady: () => this.#confirm(session, sink, tag),",
    replace: "    this.#confirm(session, sink, tag);\n    this.read(\n      {\n        onReady: () => undefined,",
    also: [
      {
        find: 'onRefused: (_, refusal) => sink.onRefused(tag, refusal),\n        onOutcome: () => assert(false, "a read has no outcome"),',
        replace: "onRefused: () => undefined,\n        onOutcome: () => undefined,",
      },
    ],
    world: "stack",
    source: "etcd 15247",
    harmless:
      "Check-quorum deposes a leader within 1.2 s of being cut off, and its successor gives every session a full TTL from its own start.",
    pair: "a leader that nobody deposes confirms keep-alives without proof",
  },
  {
    name: "a new leader cuts leases short",
    file: "replica/session-keeper.ts",
    find: "deadlineMs: this.#platform.now() + ttlMs, expiring: false",
    replace: "deadlineMs: this.#platform.now() + ttlMs / 4, expiring: false",
    world: "stack",
    source: "etcd 12528",
  },
  {
    name: "a session counts its lease from the answer, for its whole length",
    file: "client/session.ts",
    find: "if (sentMs > this.#confirmedMs) this.#confirmedMs = sentMs;",
    replace: "this.#confirmedMs = this.now();",
    also: [{ find: "this.confirmedMs + (this.ttlMs * 2) / 3;", replace: "this.confirmedMs + this.ttlMs * 1.2;" }],
    world: "stack",
    source: "etcd client/v3/lease.go counts from the response",
  },
  {
    name: "a lease ends half a second early",
    source: "a clock that is compared with the wrong end of the lease",
    file: "replica/session-keeper.ts",
    find: "else if (!kept.expiring && kept.deadlineMs <= nowMs && silent.length < expiriesMax) {",
    replace: "else if (!kept.expiring && kept.deadlineMs - kept.ttlMs * 0.6 <= nowMs && silent.length < expiriesMax) {",
    world: "stack",
  },
  {
    name: "a keep-alive does not move the deadline",
    source: "etcd 9888: a lease that is renewed and expires all the same",
    file: "replica/session-keeper.ts",
    find: "kept.deadlineMs = this.#platform.now() + kept.ttlMs;\n    return true;",
    replace: "return true;",
    world: "stack",
  },
  {
    name: "a leader that slept expires everybody at once",
    // In a cluster of our own clients it is harmless: whose deadline fell into the sleep was not confirmed for a whole TTL, and
    // gave up by its own clock at two thirds of it. The rule spares clients that keep no clock of their own; a test says it.
    source: "etcd 15247: a paused leader revokes leases by its own late clock",
    file: "replica/session-keeper.ts",
    find: "const wasAsleep = nowMs > this.#dueMs + asleepMs;",
    replace: "const wasAsleep = nowMs < 0;",
    world: "servers",
    tests: ["src/replica/session-keeper.test.ts"],
  },
  {
    name: "a session is confirmed while its end is under way",
    // In a cluster of our own clients it is harmless: the lease of the client ends before that of the leader, and whoever has
    // given up asks no more, nor does an answer that comes late revive anything. A test says the rule.
    file: "replica/session-keeper.ts",
    find: "if (kept === undefined || kept.expiring) return false;",
    replace: "if (kept === undefined) return false;",
    world: "servers",
    tests: ["src/replica/session-keeper.test.ts"],
    source: "etcd lessor: renew races with revoke",
  },
];
