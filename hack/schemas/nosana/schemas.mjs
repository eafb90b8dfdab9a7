// Writes two JSON files into the folder named by the first argument, made from the provider's published packages:
//   openapi.json     OpenAPI 3.1 of its REST API, walked out of @nosana/api's schema.d.ts (openapi-typescript's output)
//   job-schemas.json the JSON schemas of a job definition, as @nosana/types carries them
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { jobSchemas } from '@nosana/types';

const require = createRequire(import.meta.url);
const api = dirname(require.resolve('@nosana/api'));
const file = join(api, 'client', 'schema.d.ts');
const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true);
const interfaces = Object.fromEntries(
  source.statements.filter(ts.isInterfaceDeclaration).map((node) => [node.name.text, node.members]),
);
const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'];

const nameOf = (member) => member.name.text ?? member.name.getText();
const isNever = (type) => type.kind === ts.SyntaxKind.NeverKeyword;
const field = (members, name) => members.find((member) => member.name && nameOf(member) === name);
const tags = (node) => ts.getJSDocTags(node).map((tag) => [tag.tagName.text, String(tag.comment ?? '')]);
const docs = (node) => (ts.getJSDocCommentsAndTags(node).find(ts.isJSDoc)?.comment ?? '').toString();

function object(members) {
  const schema = { type: 'object', properties: {} };
  const required = [];
  for (const member of members) {
    if (ts.isIndexSignatureDeclaration(member)) {
      schema.additionalProperties = convert(member.type);
      continue;
    }
    schema.properties[nameOf(member)] = withFormat(convert(member.type), member);
    if (!member.questionToken) required.push(nameOf(member));
  }
  if (required.length) schema.required = required;
  return schema;
}

// The d.ts keeps formats in comments only: "Format: date-time".
function withFormat(schema, node) {
  const format = /Format: ([\w-]+)/.exec(docs(node));
  return format && schema.type === 'string' ? { ...schema, format: format[1] } : schema;
}

function union(types) {
  const members = types.map(convert);
  const constants = members.every((member) => 'const' in member);
  return constants ? { enum: members.map((member) => member.const) } : { anyOf: members };
}

function convert(type) {
  const kinds = ts.SyntaxKind;
  switch (type.kind) {
    case kinds.StringKeyword: return { type: 'string' };
    case kinds.NumberKeyword: return { type: 'number' };
    case kinds.BooleanKeyword: return { type: 'boolean' };
    case kinds.UnknownKeyword: case kinds.AnyKeyword: return {};
    case kinds.UndefinedKeyword: case kinds.NeverKeyword: return { not: {} };
  }
  if (ts.isParenthesizedTypeNode(type)) return convert(type.type);
  if (ts.isArrayTypeNode(type)) return { type: 'array', items: convert(type.elementType) };
  if (ts.isUnionTypeNode(type)) return union(type.types);
  if (ts.isIntersectionTypeNode(type)) return { allOf: type.types.map(convert) };
  if (ts.isTypeLiteralNode(type)) return object(type.members);
  if (ts.isLiteralTypeNode(type)) return literal(type.literal);
  if (ts.isIndexedAccessTypeNode(type)) return reference(type);
  if (ts.isTypeReferenceNode(type) && type.getText() === 'Record<string, never>') return { type: 'object' };
  throw new Error(`no rule for ${kinds[type.kind]}: ${type.getText()}`);
}

function literal(node) {
  if (node.kind === ts.SyntaxKind.NullKeyword) return { type: 'null' };
  return { const: JSON.parse(node.getText().replace(/^'|'$/g, '"')) };
}

function reference(type) {
  const match = /^components\["schemas"\]\["(\w+)"\]$/.exec(type.getText());
  if (!match) throw new Error(`not a schema reference: ${type.getText()}`);
  return { $ref: `#/components/schemas/${match[1]}` };
}

function parameters(members) {
  const found = field(members, 'parameters').type.members;
  return ['query', 'header', 'path'].flatMap((place) => {
    const type = field(found, place)?.type;
    if (!type || isNever(type)) return [];
    return type.members.map((member) => ({
      name: nameOf(member), in: place, required: !member.questionToken, schema: convert(member.type),
    }));
  });
}

function content(members) {
  const types = field(members, 'content')?.type;
  if (!types || isNever(types)) return undefined;
  // Elysia's answers repeat one schema under three media types; only JSON is ever sent.
  const json = field(types.members, 'application/json');
  return json && { 'application/json': { schema: convert(json.type) } };
}

function operation(members) {
  const result = { responses: {} };
  const params = parameters(members);
  if (params.length) result.parameters = params;
  const body = field(members, 'requestBody');
  if (body && !isNever(body.type)) {
    result.requestBody = { required: !body.questionToken, content: content(body.type.members) };
  }
  for (const response of field(members, 'responses').type.members) {
    const found = content(response.type.members);
    const answer = { description: docs(response) || `Status ${nameOf(response)}.` };
    if (found && nameOf(response) !== '204') answer.content = found;
    result.responses[nameOf(response)] = answer;
  }
  return result;
}

function methods(members) {
  const result = {};
  for (const member of members) {
    if (!METHODS.includes(nameOf(member)) || isNever(member.type)) continue;
    const named = ts.isIndexedAccessTypeNode(member.type) && JSON.parse(member.type.indexType.getText());
    result[nameOf(member)] = operation(named ? field(interfaces.operations, named).type.members : member.type.members);
  }
  return result;
}

const openapi = {
  openapi: '3.1.0',
  info: { title: 'Nosana dashboard API', version: require('@nosana/api/package.json').version },
  paths: Object.fromEntries(interfaces.paths.map((path) => [nameOf(path), methods(path.type.members)])),
  components: {
    schemas: Object.fromEntries(
      field(interfaces.components, 'schemas').type.members.map((member) => [nameOf(member), convert(member.type)]),
    ),
  },
};

const out = process.argv[2];
mkdirSync(out, { recursive: true });
writeFileSync(join(out, 'openapi.json'), JSON.stringify(openapi, null, 1));
writeFileSync(join(out, 'job-schemas.json'), JSON.stringify(jobSchemas, null, 1));
console.log(`${Object.keys(openapi.paths).length} paths, ${Object.keys(jobSchemas.components.schemas).length} job schemas`);
