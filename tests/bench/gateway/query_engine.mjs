#!/usr/bin/env node
// Prisma's query engine for the peer, where its native build cannot be downloaded: the build as WebAssembly, which npm has.
//
// The peer's client speaks GraphQL over HTTP to a native engine; the WebAssembly build takes JSON and is a library. This
// program translates between the two. It needs more CPU than the native engine, so the benchmark does not count it.

import fs from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'

if (process.argv.includes('--version')) {
  console.log('query-engine wasm')
  process.exit()
}

const load = createRequire(import.meta.url)
const { PrismaPg } = load('@prisma/adapter-pg')
const { bindAdapter } = load('@prisma/driver-adapter-utils')
const { parse, valueFromASTUntyped } = load('graphql')
const { Pool } = load('pg')
const RUNTIME = path.join(path.dirname(load.resolve('@prisma/client/package.json')), 'runtime')

const ACTION = /^(findUniqueOrThrow|findFirstOrThrow|findUnique|findFirst|findMany|createOne|createMany|updateOne|updateMany|upsertOne|deleteOne|deleteMany|aggregate|groupBy|queryRaw|executeRaw)(.*)$/

const schema = fs.readFileSync(process.env.PRISMA_DML_PATH, 'utf8')
// Of each model the fields of type Json: GraphQL sends their values as strings.
const JSON_FIELDS = new Map(
  [...schema.matchAll(/^model (\w+) \{$(.*?)^\}$/gms)].map(([, model, body]) => [
    model,
    new Set([...body.matchAll(/^ +(\w+) +Json\b/gm)].map(([, field]) => field)),
  ]),
)

function newEngine() {
  const bindings = load(path.join(RUNTIME, 'query_engine_bg.postgresql.js'))
  const module = new WebAssembly.Module(fs.readFileSync(path.join(RUNTIME, 'query_engine_bg.postgresql.wasm')))
  bindings.__wbg_set_wasm(new WebAssembly.Instance(module, { './query_engine_bg.js': bindings }).exports)
  const options = {
    datamodel: schema,
    env: process.env,
    logQueries: false,
    ignoreEnvVarErrors: true,
    datasourceOverrides: {},
    logLevel: 'error',
    configDir: '.',
    engineProtocol: 'json',
  }
  const pool = new Pool({ connectionString: process.env.DATABASE_URL })
  return new bindings.QueryEngine(options, () => {}, bindAdapter(new PrismaPg(pool)))
}

function toJson({ query }) {
  const field = parse(query).definitions[0].selectionSet.selections[0]
  const [, action, modelName] = ACTION.exec(field.name.value)
  return { ...(modelName && { modelName }), action, query: argumentsAndSelection(field, JSON_FIELDS.get(modelName)) }
}

function argumentsAndSelection(field, jsonFields) {
  const given = field.arguments.map((argument) => [argument.name.value, valueFromASTUntyped(argument.value)])
  const selected = (field.selectionSet?.selections ?? []).map((child) => [
    child.name.value,
    child.selectionSet || child.arguments.length ? argumentsAndSelection(child) : true,
  ])
  return { arguments: tagged(Object.fromEntries(given), jsonFields), selection: Object.fromEntries(selected) }
}

function tagged(value, jsonFields) {
  if (Array.isArray(value)) return value.map((inner) => tagged(inner, jsonFields))
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).map(([name, inner]) => [
    name,
    typeof inner === 'string' && jsonFields?.has(name) ? { $type: 'Json', value: inner } : tagged(inner, jsonFields),
  ])
  return Object.fromEntries(entries)
}

function toGraphql(answer) {
  if (answer.batchResult) return { ...answer, batchResult: answer.batchResult.map(toGraphql) }
  if (!answer.data) return answer
  const [result] = Object.values(answer.data)
  return { ...answer, data: { result: result?.columns && result.rows ? rawRows(result) : untagged(result) } }
}

function rawRows({ columns, types, rows }) {
  return rows.map((row) => Object.fromEntries(row.map((value, i) => [columns[i], rawValue(types[i], value)])))
}

function rawValue(type, value) {
  if (!type.endsWith('-array') || value === null) return { prisma__type: value === null ? 'null' : type, prisma__value: value }
  const inner = type.slice(0, -'-array'.length)
  return { prisma__type: 'array', prisma__value: value.map((each) => rawValue(inner, each)) }
}

function untagged(value) {
  if (Array.isArray(value)) return value.map(untagged)
  if (value === null || typeof value !== 'object') return value
  if ('$type' in value) return value.value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, untagged(inner)]))
}

async function answer(engine, url, body, transaction) {
  if (url === '/status') return { status: 'ok' }
  const [, , id, verb] = url.split('/')
  if (url === '/transaction/start') return JSON.parse(await engine.startTransaction(body, '{}'))
  if (verb === 'commit') return JSON.parse(await engine.commitTransaction(id, '{}'))
  if (verb === 'rollback') return JSON.parse(await engine.rollbackTransaction(id, '{}'))
  const asked = JSON.parse(body)
  const request = asked.batch
    ? { batch: asked.batch.map(toJson), transaction: asked.transaction ? {} : null }
    : toJson(asked)
  return toGraphql(JSON.parse(await engine.query(JSON.stringify(request), '{}', transaction)))
}

const engine = newEngine()
await engine.connect('{}')
const server = http.createServer(async (request, response) => {
  let body = ''
  for await (const part of request.setEncoding('utf8')) body += part
  let found
  try {
    found = await answer(engine, request.url, body, request.headers['x-transaction-id'])
  } catch (error) {
    console.error(error, body.slice(0, 500))
    found = { errors: [{ error: String(error) }] }
  }
  response.setHeader('content-type', 'application/json').end(JSON.stringify(found))
})
server.listen(Number(process.argv[process.argv.indexOf('-p') + 1]), 'localhost')
