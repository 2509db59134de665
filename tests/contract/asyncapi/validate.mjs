// Validates an AsyncAPI document with the AsyncAPI project's own parser: `node validate.mjs FILE [NODE_MODULES]`.
//
// In: the path of the document; the folder with the installed packages (default: beside this script).
// Out: one line of JSON {"errors": [...], "warnings": [...], "channels": n, "operations": n, "messages": n}.
// Exit codes: 0 valid (warnings may stand), 1 not valid, 2 it could not be tried.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";

const [file, modules = path.join(import.meta.dirname, "node_modules")] = process.argv.slice(2);
if (!file) {
  console.error("usage: node validate.mjs FILE [NODE_MODULES]");
  process.exit(2);
}

let Parser;
try {
  ({ Parser } = createRequire(path.resolve(modules, "_"))("@asyncapi/parser"));
} catch (error) {
  console.error(`@asyncapi/parser is not in ${modules}: run \`npm ci --ignore-scripts\` beside package.json (${error.message})`);
  process.exit(2);
}

const SEVERITIES = ["errors", "warnings", "information", "hints"];
const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"), { source: file });
const found = { errors: [], warnings: [], information: [], hints: [] };
for (const one of diagnostics) {
  found[SEVERITIES[one.severity]].push({ code: one.code, path: one.path.join("/"), message: one.message });
}
if (document) {
  found.channels = document.channels().length;
  found.operations = document.operations().length;
  found.messages = document.components().messages().length;
}
console.log(JSON.stringify(found));
process.exit(found.errors.length || !document ? 1 : 0);
