// The adapter of the JavaScript port: one JSON object a line, on standard input and output.

import { createInterface } from "node:readline";
import { fromBits, init, optimizers, step, toBits } from "./optimizers.mjs";

function run({ optimizer, dtype, hyperparameters, parameter, gradients }) {
  if (!(optimizer in optimizers)) return { unsupported: `no ${optimizer}` };
  if (dtype !== "float32") return { unsupported: `no ${dtype}` };
  const { slots } = optimizers[optimizer];
  const parameters = [];
  const state = Object.fromEntries(slots.map((slot) => [slot, []]));
  let elements = parameter.map((bits) => ({ w: fromBits(bits), ...init(optimizer) }));
  gradients.forEach((gradient, t) => {
    const rate = [hyperparameters.learning_rate].flat(); // one number, or one a step
    const h = { ...hyperparameters, learning_rate: rate[rate.length > 1 ? t : 0] };
    elements = elements.map((e, i) => step(optimizer, h, e.w, fromBits(gradient[i]), e, t + 1));
    parameters.push(elements.map((e) => toBits(e.w)));
    for (const slot of slots) state[slot].push(elements.map((e) => toBits(e[slot])));
  });
  return { parameters, state };
}

function answer(request) {
  if (request.op === "start") return { protocol: 1, name: "javascript-port", version: "1" };
  try {
    return { id: request.id, ...run(request) };
  } catch (error) {
    return { id: request.id, error: String(error) };
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const request = JSON.parse(line);
  if (request.op === "stop") process.exit();
  process.stdout.write(JSON.stringify(answer(request)) + "\n");
});
