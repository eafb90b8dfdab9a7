// Reads SDL documents (a JSON list of texts) from standard input and answers what the provider's own code makes of each.
// Run with the folder of node_modules as the argument.
const { createRequire } = require("node:module");
const load = createRequire(process.argv[2] + "/");
const { generateManifest, generateManifestVersion, manifestToSortedJSON } = load("@akashnetwork/chain-sdk");
const yaml = load("js-yaml"); // with which the package itself reads an SDL

async function read(text) {
  const made = generateManifest(yaml.load(text));
  if (!made.ok) return { errors: made.value.map((error) => error.message) };
  const version = await generateManifestVersion(made.value.groups);
  return {
    manifest: manifestToSortedJSON(made.value.groups),
    hash: Buffer.from(version).toString("base64"),
    groups: made.value.groupSpecs.map((group) => group.name),
  };
}

const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", async () => {
  const texts = JSON.parse(Buffer.concat(chunks).toString());
  process.stdout.write(JSON.stringify(await Promise.all(texts.map(read))));
});
