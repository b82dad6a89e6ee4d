/**
 * The few bytes of etcd's v3 API this bench speaks: protobuf by hand, and one gRPC unary call over cleartext HTTP/2.
 *
 *   gRPC message    | 0 (not compressed) | length, 4 bytes big-endian | protobuf … |
 *   protobuf field  | varint (field number << 3 | wire type) | varint value            |   wire type 0
 *                   | varint (field number << 3 | wire type) | varint length | bytes … |   wire type 2
 *
 * Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md), Protocol Buffers encoding guide, etcd api/etcdserverpb/rpc.proto.
 * Assumes a trusted etcd on loopback. Leaves out streaming, TLS, and every field the bench does not read.
 */

import { connect } from "node:http2";

/** The gRPC paths the bench calls. */
export const paths = {
  put: "/etcdserverpb.KV/Put",
  range: "/etcdserverpb.KV/Range",
  leaseGrant: "/etcdserverpb.Lease/LeaseGrant",
  status: "/etcdserverpb.Maintenance/Status",
} as const;

/** A decoded protobuf message: the last value seen of each field. */
export type Fields = ReadonlyMap<number, bigint | Buffer>;

const responseBytesMax = 1 << 20;

/** `PutRequest { bytes key = 1; bytes value = 2; }` */
export function putRequest({ key, value }: { readonly key: Buffer; readonly value: Buffer }): Buffer {
  return Buffer.concat([bytesField(1, key), bytesField(2, value)]);
}

/** `RangeRequest { bytes key = 1; }`: one key, and linearizable, because `serializable` stays false. */
export function rangeRequest(key: Buffer): Buffer {
  return bytesField(1, key);
}

/** `LeaseGrantRequest { int64 TTL = 1; }`: the lease id, field 2, stays 0, so etcd picks one. */
export function leaseGrantRequest(ttlSeconds: number): Buffer {
  return Buffer.concat([varint(1 << 3), varint(ttlSeconds)]);
}

/** The gRPC length prefix and the message behind it: exactly what travels in the HTTP/2 body. */
export function grpcFrame(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** Who leads, seen from one member. */
export interface MemberStatus {
  readonly version: string;
  readonly member: bigint;
  /** 0n while the member knows of no leader. */
  readonly leader: bigint;
}

/** Reads `StatusResponse { ResponseHeader header = 1 { member_id = 2 }; string version = 2; uint64 leader = 4; }`. */
export function memberStatus(response: Fields): MemberStatus {
  const header = response.get(1);
  const version = response.get(2);
  const member = Buffer.isBuffer(header) ? decodeFields(header).get(2) : undefined;
  const leader = response.get(4) ?? 0n;
  if (!Buffer.isBuffer(version) || typeof member !== "bigint" || typeof leader !== "bigint") {
    throw new Error("etcd answered Status with a message this bench cannot read");
  }
  return { version: version.toString("utf8"), member, leader };
}

/** The value of the first pair: `RangeResponse { repeated KeyValue kvs = 2 { bytes value = 5 } }`. */
export function firstValue(response: Fields): Buffer | undefined {
  const pair = response.get(2);
  const value = Buffer.isBuffer(pair) ? decodeFields(pair).get(5) : undefined;
  return Buffer.isBuffer(value) ? value : undefined;
}

/** One call: what to ask, of whom, and how long to wait. */
export interface UnaryCall {
  /** `host:port`. */
  readonly endpoint: string;
  readonly path: string;
  readonly message: Buffer;
  /** Milliseconds. */
  readonly timeoutMs: number;
}

/**
 * Makes one unary call on a fresh connection and decodes the answer.
 * Rejects when the connection fails, the time is up, or the gRPC status is not OK; then the call may still have happened.
 */
export function callUnary({ endpoint, path, message, timeoutMs }: UnaryCall): Promise<Fields> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://${endpoint}`);
    const timer = setTimeout(() => fail(new Error(`${path} on ${endpoint} gave no answer in ${timeoutMs} ms`)), timeoutMs);
    const chunks: Buffer[] = [];
    let receivedBytes = 0;
    let grpcStatus = "none";
    let grpcMessage = "";

    function fail(error: Error): void {
      clearTimeout(timer);
      session.destroy();
      reject(error);
    }

    function noteStatus(headers: Record<string, unknown>): void {
      grpcStatus = String(headers["grpc-status"] ?? grpcStatus);
      grpcMessage = String(headers["grpc-message"] ?? grpcMessage);
    }

    session.on("error", fail);
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" });
    stream.on("error", fail);
    // An error without a body carries its status in the headers ("trailers-only"); any other answer in the trailers.
    stream.on("response", noteStatus);
    stream.on("trailers", noteStatus);
    stream.on("data", (chunk: Buffer) => {
      receivedBytes += chunk.length;
      if (receivedBytes > responseBytesMax)
        fail(new Error(`${path} on ${endpoint} answered with over ${responseBytesMax} bytes`));
      else chunks.push(chunk);
    });
    stream.on("end", () => {
      if (grpcStatus !== "0") return fail(new Error(`${path} on ${endpoint} failed: grpc-status ${grpcStatus} ${grpcMessage}`));
      clearTimeout(timer);
      session.close();
      try {
        resolve(decodeFields(Buffer.concat(chunks).subarray(5)));
      } catch (error) {
        reject(error);
      }
    });
    stream.end(grpcFrame(message));
  });
}

function bytesField(field: number, bytes: Buffer): Buffer {
  return Buffer.concat([varint((field << 3) | 2), varint(bytes.length), bytes]);
}

function varint(value: number): Buffer {
  const out: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    out.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  out.push(rest);
  return Buffer.from(out);
}

function decodeFields(message: Buffer): Fields {
  const fields = new Map<number, bigint | Buffer>();
  let at = 0;

  function readVarint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = message[at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error("a protobuf varint in etcd's answer is cut short or too long");
  }

  function skip(count: number): Buffer {
    const part = message.subarray(at, at + count);
    if (part.length !== count) throw new Error("a protobuf field in etcd's answer is cut short");
    at += count;
    return part;
  }

  while (at < message.length) {
    const tag = Number(readVarint());
    const field = tag >>> 3;
    switch (tag & 7) {
      case 0:
        fields.set(field, readVarint());
        break;
      case 1:
        skip(8);
        break;
      case 2:
        fields.set(field, skip(Number(readVarint())));
        break;
      case 5:
        skip(4);
        break;
      default:
        throw new Error(`etcd's answer holds protobuf wire type ${tag & 7}, which this bench does not read`);
    }
  }
  return fields;
}
