// Asks for everything that tests/clients/test_openai_node.py looks at, and prints what came, one JSON a line.
import OpenAI, { AzureOpenAI, toFile } from "openai";

const client = process.env.AZURE ? new AzureOpenAI() : new OpenAI();
const asked = { model: "z-image-demo", prompt: "a red circle on a blue background", size: "128x128" };
const print = (name, found) => console.log(JSON.stringify({ name, ...found }));

async function refusal(call) {
  try {
    await call();
    return { refused: null };
  } catch (error) {
    const headers = Object.fromEntries(error.headers ?? []);
    return { refused: error.constructor.name, code: error.code, param: error.param, message: error.message, headers };
  }
}

const scenes = {
  async generate() {
    const { data, response } = await client.images.generate({ ...asked, n: 2, output_format: "webp" }).withResponse();
    return { images: data.data.map((image) => image.b64_json), usage: data.usage, cost: response.headers.get("easel-cost") };
  },
  async stream() {
    const stream = await client.images.generate({ ...asked, size: "512x512", stream: true, partial_images: 2 });
    const events = [];
    for await (const event of stream) events.push(event);
    return { types: events.map((event) => event.type), images: [events.at(-1).b64_json], usage: events.at(-1).usage };
  },
  async models() {
    const listed = [];
    for await (const model of client.models.list()) listed.push(model.id);
    return { listed, retrieved: (await client.models.retrieve("z-image-demo")).id };
  },
  size: () => refusal(() => client.images.generate({ ...asked, size: "100x100" })),
  edit: async () => {
    const image = await toFile(Buffer.from("PNG"), "circle.png", { type: "image/png" });
    return refusal(() => client.images.edit({ model: asked.model, prompt: "a blue circle", image }));
  },
  once: () => refusal(() => client.images.generate(asked, { maxRetries: 0 })),
  retried: () => refusal(() => client.images.generate(asked)),
};

for (const name of process.env.SCENES.split(",")) print(name, await scenes[name]());
