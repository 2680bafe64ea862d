// A program that somebody writes against the API: its types are generated from the API's description, and it is compiled with all
// strictness that TypeScript has. A column that the description does not know, or that may be null and is not said to be, does not
// compile.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const baseUrl = process.argv[2];
assert(baseUrl, "usage: client.js <address of the server>");
const crm = createClient<paths>({ baseUrl });

type Done = components["schemas"]["Done"];

// A command that begins a stream, and its answer.
const registered = await crm.POST("/api/customer", {
  body: { type: "register", kind: "organisation", name: "宏達精密", country: "TW" },
  params: { header: { "X-Actor": "user:mei" } },
});
assert.equal(registered.response.status, 201);
const customer: Done = known(registered.data);

const opened = await crm.POST("/api/opportunity", {
  body: {
    type: "open",
    customer: customer.id,
    name: "五軸加工機 2 台",
    amount: { minor: 120000000, currency: "TWD" },
    close_date: "2027-06-30",
    owner: "mei",
  },
});
const deal: Done = known(opened.data);

// A refusal has a sentence, and the types say so.
const refused = await crm.POST("/api/opportunity/{id}", {
  params: { path: { id: deal.id } },
  body: { type: "set-amount", amount: { minor: 1, currency: "USD" } },
});
assert.equal(refused.response.status, 422);
const problem: components["schemas"]["Problem"] = known(refused.error);
assert.match(problem.detail, /TWD/);

// The state, and the same state again.
const present = await crm.GET("/api/opportunity/{id}", { params: { path: { id: deal.id } } });
assert.equal(known(present.data).version, deal.version);
const unchanged = await crm.GET("/api/opportunity/{id}", {
  params: { path: { id: deal.id }, header: { "If-None-Match": `"${deal.version}"` } },
});
assert.equal(unchanged.response.status, 304);

// A list, as soon as it has seen the command; several values of a column mean any of them.
const listed = await crm.GET("/api/pipeline", {
  params: { query: { customer: customer.id, status: ["open", "won"], at_least: deal.position, limit: 10 } },
});
assert.equal(known(listed.data).rows.length, 1);
const open = await crm.GET("/api/pipeline", { params: { query: { customer: customer.id, where: ["owner is not null"] } } });
const [row] = known(open.data).rows;
assert(row !== undefined && "opportunity" in row);
const amount: number | null = row.amount_minor;
assert.equal(amount, 120000000);
const name: string = row.name;
assert.equal(name, "五軸加工機 2 台");

// What is computed has types as well.
const forecast = await crm.GET("/api/forecast", { params: { query: { at_least: deal.position } } });
for (const month of known(forecast.data).rows) {
  const weighted: number = month.weighted_minor;
  const currency: string | null = month.currency;
  assert(Number.isInteger(weighted) && currency === "TWD");
}

// A person is found without a URL that names one.
const found = await crm.POST("/api/customers/query", {
  body: { name: "宏達精密", owner: null, status: ["active"], at_least: customer.position },
});
assert.deepEqual(known(found.data).rows.map((row) => row.customer), [customer.id]);

// Several commands, all or nothing.
const bundle = await crm.POST("/api/bundle", {
  body: {
    commands: [
      { stream: "customer", command: { type: "register", kind: "person", name: "王小明" } },
      { stream: "loyalty", command: { type: "enrol", customer: { item: 0 }, program: "points" } },
    ],
  },
});
assert.equal(known(bundle.data).streams.length, 2);

console.log("the client did all that it wanted");

function known<T>(value: T | undefined): T {
  assert(value !== undefined, "the answer is not what the description says");
  return value;
}
