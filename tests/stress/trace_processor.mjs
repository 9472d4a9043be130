// node trace_processor.mjs ASSETS TRACE SQL...: one JSON array of rows a line for each query.
// The trace processor is a web worker of ui.perfetto.dev; this is as much of a browser as it needs.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

const [assets, trace, ...queries] = process.argv.slice(2);
const read = (name) => new Uint8Array(readFileSync(`${assets}/${name}`));

class Request {
  open(_method, url) {
    this.name = url;
  }
  send() {
    this.response = read(this.name).buffer;
  }
}
const browser = {
  self: globalThis,
  location: { href: "worker.js" },
  WorkerGlobalScope: Object,
  XMLHttpRequest: Request,
};
for (const [name, value] of Object.entries(browser))
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
// The worker tries whether memories of 64 bits exist, with a module that has but a section of memory
// (5). The package has the build for 32 bits only.
const Module = WebAssembly.Module;
WebAssembly.Module = function (bytes) {
  if (bytes[8] === 5) throw new WebAssembly.CompileError("no memory64");
  return new Module(bytes);
};
console.log = console.warn = console.error; // stdout is for rows
const { EngineBase } = await import(pathToFileURL(`${assets}/engine.mjs`));
vm.runInThisContext(readFileSync(`${assets}/engine_bundle.node.js`, "utf8"));
const { port1, port2 } = new MessageChannel();
self.onmessage({ data: port1 });

class Engine extends EngineBase {
  mode = "WASM";
  id = "check";
  rpcSendRequestBytes(bytes) {
    port2.postMessage(bytes);
  }
}
const engine = new Engine();
port2.onmessage = ({ data }) => engine.onRpcResponseBytes(data);
const bytes = new Uint8Array(readFileSync(trace));
const CHUNK = 16 << 20;
for (let at = 0; at < bytes.length; at += CHUNK) await engine.parse(bytes.subarray(at, at + CHUNK));
await engine.notifyEof();
const plain = (value) => (typeof value === "bigint" ? Number(value) : value);
for (const sql of queries) {
  const result = await engine.query(sql);
  const rows = [];
  for (const it = result.iter({}); it.valid(); it.next())
    rows.push(result.columns().map((name) => plain(it.get(name))));
  process.stdout.write(`${JSON.stringify(rows)}\n`);
}
process.exit(0);
