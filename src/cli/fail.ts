/**
 * How a command says that it failed: one or two lines for people, one JSON object for programs, an exit code for both.
 */
import { styleText } from "node:util";
import { CommanderError } from "commander";
import { ConclaveError } from "../base/errors.ts";
import { exitCodeOf, exitCodes } from "./exit-codes.ts";

/** Ends the process quietly with this code: what had to be said was said. */
export class Exit extends Error {
  override readonly name = "Exit";
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** The fields of an error that a program reads. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  /** True: it did not happen. */
  readonly definite: boolean;
  readonly retryable: boolean;
  readonly exitCode: number;
}

/** Prints the error to standard error and ends the process. */
export function failWith(error: unknown, argv: readonly string[]): never {
  if (error instanceof Exit) process.exit(error.exitCode);
  // Help and the version were asked for, and printed.
  if (error instanceof CommanderError && error.exitCode === 0) process.exit(0);
  // What follows `--` is somebody else's command line.
  const end = argv.indexOf("--");
  const own = end < 0 ? argv : argv.slice(0, end);
  const failure = describe(error);
  process.stderr.write(own.includes("--json") ? `${JSON.stringify(failure)}\n` : say(failure, error, own.includes("--verbose")));
  process.exit(failure.exitCode);
}

export function describe(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof ConclaveError) {
    const { code, definite, retryable } = error;
    return { code, message, definite, retryable, exitCode: ownExitCode(error) ?? exitCodeOf(error) };
  }
  if (error instanceof CommanderError)
    return { code: "USAGE", message: usageMessage(error), definite: true, retryable: false, exitCode: exitCodes.usage };
  const code = error instanceof Error && "code" in error ? String(error.code) : "INTERNAL";
  return { code, message, definite: false, retryable: false, exitCode: ownExitCode(error) ?? exitCodeOf(error) };
}

/** `conclave: Lock "x" was not free ... [LOCK_TIMEOUT]`. */
function say({ code, message, exitCode }: Failure, error: unknown, isVerbose: boolean): string {
  const first = `${styleText("red", "conclave:", { stream: process.stderr })} ${message} [${code}]\n`;
  if (isVerbose && error instanceof Error) return first + trace(error);
  return exitCode === exitCodes.internal ? `${first}This is unexpected; --verbose shows where it happened.\n` : first;
}

function trace(error: Error): string {
  const own = `${error.stack ?? error.message}\n`;
  return error.cause instanceof Error ? `${own}caused by ${trace(error.cause)}` : own;
}

/** Commander's words, without its prefix, its line break and with a way out. */
function usageMessage({ message }: CommanderError): string {
  if (message === "(outputHelp)") return "Which command? See `conclave help`.";
  const text = message
    .replace(/^error: /, "")
    .replace(/\n/g, " ")
    .trim();
  return `${text}${/[.?)]$/.test(text) ? "" : "."} See --help.`;
}

function ownExitCode(error: unknown): number | undefined {
  return error instanceof Error && "exitCode" in error && typeof error.exitCode === "number" ? error.exitCode : undefined;
}
