// The flags of a script: an unknown one is answered with the script's own head, as `--help` is.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

export function flagsOf(url, options) {
  try {
    const { values } = parseArgs({ options: { ...options, help: { type: "boolean", short: "h", default: false } } });
    if (!values.help) return values;
  } catch (error) {
    console.error(`${error.message}\n`);
    console.error(headOf(fileURLToPath(url)));
    process.exit(2);
  }
  console.log(headOf(fileURLToPath(url)));
  process.exit(0);
}

/** The comment at the head of the file. */
export function headOf(path) {
  const text = readFileSync(path, "utf8");
  const head = /^\/\*\*\n([\s\S]*?)\n? \*\//.exec(text)?.[1] ?? /^(?:\/\/.*\n)+/.exec(text)?.[0] ?? "";
  return head.replaceAll(/^(?:\/\/| \*) ?/gm, "").trimEnd();
}
