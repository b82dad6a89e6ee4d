#!/usr/bin/env node
/**
 * `conclave`: the command line. Words and options are declared in the `*-command.ts` files; this one runs what was asked
 * for and turns what was thrown into an exit code.
 */
import { onBackgroundFailure } from "../base/background.ts";
import { failWith } from "./fail.ts";
import { makeProgram } from "./program.ts";

// The reader of a pipe may leave (`conclave range | head`): nothing more to say, then; 141 is a shell's word for it.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 141 : 74));

// What fails behind a command that has its answer: told, and no reason to fail. `serve` logs it instead.
onBackgroundFailure((name, error) =>
  process.stderr.write(`conclave: ${name}: ${error instanceof Error ? error.message : error}\n`),
);

try {
  await makeProgram().parseAsync(process.argv);
} catch (error) {
  failWith(error, process.argv);
}
