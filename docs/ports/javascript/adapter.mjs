// The adapter of the JavaScript port: one JSON object a line, on standard input and output.

import { createInterface } from "node:readline";
import { fromBits, init, optimizers, step, toBits } from "./optimizers.mjs";

function run({ optimizer, hyperparameters, step: done = 0 }, { parameter, gradients, state: given = {} }) {
  const { slots } = optimizers[optimizer];
  const parameters = [];
  const state = Object.fromEntries(slots.map((slot) => [slot, []]));
  let elements = parameter.map((bits) => ({ w: fromBits(bits), ...init(optimizer) }));
  for (const slot in given) elements.forEach((e, i) => (e[slot] = fromBits(given[slot][i])));
  gradients.forEach((row, t) => {
    const rate = [hyperparameters.learning_rate].flat(); // one number, or one a step
    const h = { ...hyperparameters, learning_rate: rate[rate.length > 1 ? t : 0] };
    const g = row.map((bits) => fromBits(bits.padEnd(8, "0"))); // a bfloat16 is the upper half of a float32
    elements = elements.map((e, i) => step(optimizer, h, e.w, g[i], e, done + t + 1));
    parameters.push(elements.map((e) => toBits(e.w)));
    for (const slot of slots) state[slot].push(elements.map((e) => toBits(e[slot])));
  });
  return { parameters, state };
}

function answer(request) {
  const { op, newest, optimizer, dtype, gradient_dtype = dtype, tree } = request;
  if (op === "start") return { protocol: newest >= 2 ? 2 : 1, name: "javascript-port", version: "1" };
  if (!(optimizer in optimizers)) return { unsupported: `no ${optimizer}` };
  if (dtype !== "float32") return { unsupported: `no ${dtype}` };
  if (!["float32", "bfloat16"].includes(gradient_dtype)) return { unsupported: `no gradients in ${gradient_dtype}` };
  return tree ? { tree: tree.map((leaf) => run(request, leaf)) } : run(request, request);
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const request = JSON.parse(line);
  if (request.op === "stop") process.exit();
  let reply;
  try {
    reply = answer(request);
  } catch (error) {
    reply = { error: String(error) };
  }
  process.stdout.write(JSON.stringify({ id: request.id, ...reply }) + "\n");
});
