// Reads SDL documents from standard input, a JSON list of texts a line, and answers each line with what the provider's own code makes of them.
// What isn't a text is taken for the claims of a token.
// Run with the folder of node_modules as the argument.
const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");
const load = createRequire(process.argv[2] + "/");
const { generateManifest, generateManifestVersion, manifestToSortedJSON, JwtValidator } = load("@akashnetwork/chain-sdk");
const yaml = load("js-yaml"); // with which the package itself reads an SDL

async function read(text) {
  if (typeof text !== "string") return { errors: new JwtValidator().validateToken(text).errors };
  const made = generateManifest(yaml.load(text));
  if (!made.ok) return { errors: made.value.map((error) => error.message) };
  const version = await generateManifestVersion(made.value.groups);
  return {
    manifest: manifestToSortedJSON(made.value.groups),
    hash: Buffer.from(version).toString("base64"),
    groups: made.value.groupSpecs.map((group) => group.name),
  };
}

createInterface({ input: process.stdin }).on("line", async (line) => {
  process.stdout.write(JSON.stringify(await Promise.all(JSON.parse(line).map(read))) + "\n");
});
