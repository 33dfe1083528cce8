// Prints the size of the client, minified and compressed, and fails above the limit.

import { build } from "esbuild";
import { gzipSync } from "node:zlib";

const LIMIT = 5_000;

const entryPoints = [new URL("../dist/index.js", import.meta.url).pathname];
const { outputFiles } = await build({ entryPoints, bundle: true, minify: true, format: "esm", target: "es2022", write: false });
const { length } = gzipSync(outputFiles[0].contents, { level: 9 });
console.log(`${outputFiles[0].contents.length} bytes minified, ${length} bytes with gzip, of ${LIMIT}`);
process.exit(length > LIMIT ? 1 : 0);
