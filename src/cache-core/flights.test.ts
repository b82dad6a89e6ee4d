/**
 * The table of flights against a Map, with hashes that meet.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Flight, type FlightPlan } from "./flight.ts";
import { Flights } from "./flights.ts";

const departure = { floor: 0, changes: 0, life: 0, startedMs: 0, isDirect: false };
const plan: FlightPlan<number> = { load: () => 1, options: {}, isDirect: false, newerThan: undefined, onParked: undefined };

test("any order of coming and going leaves of each key the latest flight, whose hashes meet or not", () => {
  // Few low bits, so that many want one hook, also at the end of the table; and keys of one hash.
  const keyHash = fc.oneof(fc.constantFrom(0, 1, 62, 63, 64, 127, 2 ** 52 + 63, 2 ** 53 - 1), fc.nat({ max: 300 }));
  const steps = fc.array(fc.record({ keyHash, name: fc.constantFrom("a", "b"), act: fc.constantFrom("set", "set", "delete") }), {
    maxLength: 400,
  });
  fc.assert(
    fc.property(steps, (run) => {
      const flights = new Flights<number>();
      const model = new Map<string, Flight<number>>();
      const gone: Flight<number>[] = [];
      for (const { keyHash: hash, name, act } of run) {
        const key = `${name}${hash}`;
        const present = model.get(key);
        if (act === "set") {
          const flight = new Flight<number>({ key: `${name}${hash}`, keyHash: hash, ...departure }, plan);
          flights.set(flight);
          model.set(key, flight);
        } else if (present !== undefined) {
          flights.delete(present);
          model.delete(key);
        }
        if (present !== undefined) gone.push(present);
        // Who has gone, or was replaced, takes nobody along.
        for (const each of gone.slice(-3)) flights.delete(each);
        expect(flights.size).toBe(model.size);
        for (const [each, flight] of model) expect(flights.get(each, flight.keyHash)).toBe(flight);
        expect(flights.get(key, hash)).toBe(model.get(key));
      }
    }),
    { numRuns: 60 },
  );
});
