// Draw a prompt, show its progress, save the picture: node examples/client.mjs [URL]
// Needs Node 18 or newer and a server (make serve); in a browser the same calls work.
import { writeFile } from "node:fs/promises";

const url = process.argv[2] ?? "http://127.0.0.1:8000";

async function call(path, init) {
  const response = await fetch(url + path, init);
  if (!response.ok) {
    const problem = await response.json();
    throw new Error(`${response.status} ${problem.code}: ${problem.detail}`);
  }
  return response;
}

async function* events(path) {
  const lines = (await call(path)).body.pipeThrough(new TextDecoderStream());
  let rest = "";
  for await (const chunk of lines) {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = /^event: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (event && data) yield [event, JSON.parse(data)];
    }
  }
}

const submitted = await call("/v1/generations", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ prompt: "a red circle on a blue background" }),
});
let record = await submitted.json();
for await (const [event, data] of events(record.urls.events)) {
  if (event === "progress") console.log(`step ${data.steps_done} of ${data.steps_total}`);
}
record = await (await call(record.urls.self)).json();
if (record.status !== "succeeded") throw new Error(`${record.status}: ${record.error?.message}`);
const image = await call(record.images[0].url);
await writeFile("picture.png", Buffer.from(await image.arrayBuffer()));
console.log(`wrote picture.png, seed ${record.images[0].seed}`);
