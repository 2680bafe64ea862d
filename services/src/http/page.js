// The API's page: reads /api/openapi.json, lists what there is, and sends requests to this server.
// Everything that is shown goes through textContent; no text ever becomes markup.
"use strict";

const WORDS = {
  en: {
    language: "中文", skip: "To the content", search: "Search", operations: "Operations", loading: "Loading…",
    failed: "The description could not be loaded", overview: "Overview", schemas: "Schemas", problems: "Problems",
    parameters: "Parameters", body: "Body", command: "Command", answers: "Answers", tryIt: "Try it", send: "Send", sending: "Sending…",
    newId: "New id", more: "Next page", answer: "Answer", nothing: "No text", noAnswer: "There was no answer", copy: "as curl",
    name: "Name", where: "Where", meaning: "Meaning", type: "Type", status: "Status", required: "required", noneFound: "Nothing found",
    listOf: "list of", oneOf: "one of", orNull: "or null", anything: "anything", fields: "Fields",
    problemsAbout: "Every error has the content type application/problem+json and one of these types.",
  },
  "zh-TW": {
    language: "English", skip: "跳到內容", search: "搜尋", operations: "操作列表", loading: "載入中…",
    failed: "無法載入 API 說明", overview: "總覽", schemas: "資料格式", problems: "錯誤種類",
    parameters: "參數", body: "內文", command: "命令", answers: "回應", tryIt: "試試看", send: "送出", sending: "傳送中…",
    newId: "新識別碼", more: "下一頁", answer: "回應", nothing: "沒有內容", noAnswer: "沒有收到回應", copy: "curl 指令",
    name: "名稱", where: "位置", meaning: "說明", type: "型別", status: "狀態碼", required: "必填", noneFound: "找不到",
    listOf: "清單：", oneOf: "下列之一", orNull: "或空值", anything: "任意值", fields: "欄位",
    problemsAbout: "所有錯誤的內容型別都是 application/problem+json，type 為下列之一。",
  },
};

const TAGS_ZH = {
  "read models": "查詢（讀取模型）", bundle: "整批命令", server: "伺服器", customer: "customer 客戶", lead: "lead 潛在客戶",
  opportunity: "opportunity 商機", interaction: "interaction 互動紀錄", case: "case 服務案件", equipment: "equipment 設備",
  inspection: "inspection 點檢", job: "job 派工", purchase: "purchase 消費", loyalty: "loyalty 會員點數", link: "link 外部代號",
};

const PROBLEMS_ZH = {
  malformed: "請求格式不正確", "not-found": "找不到", "method-not-allowed": "不支援這個方法", "too-slow": "內文傳送太慢",
  conflict: "資料已被別人更新", "too-large": "請求太大", "wrong-content-type": "內文沒有標示為 JSON", rejected: "命令被拒絕",
  "command-id-reused": "命令識別碼已用過", broken: "伺服器錯誤", "not-accepted": "命令未被接受（確定沒有執行）",
  "outcome-unknown": "結果不明，請用同一個識別碼重試", behind: "讀取模型還沒跟上", unavailable: "暫時無法服務", "no-room": "空間不足",
};

let language = readLanguage();
let description = null;

const word = (key) => WORDS[language][key];

function readLanguage() {
  const known = (text) => (text && text.toLowerCase().startsWith("zh") ? "zh-TW" : "en");
  try {
    return known(localStorage.getItem("language") || navigator.language);
  } catch {
    return known(navigator.language);
  }
}

/** An element: its tag, its attributes (`on…` are listeners), its children; texts stay texts. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** `code` and links in a description's text. */
function prose(text) {
  return String(text ?? "").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function paragraphs(text) {
  return String(text ?? "").split("\n\n").map((part) => make("p", {}, prose(part)));
}

function resolve(value) {
  let resolved = value;
  for (let hops = 0; resolved && resolved.$ref && hops < 10; hops += 1) {
    const path = resolved.$ref.slice(2).split("/");
    resolved = path.reduce((at, key) => (at ? at[key.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined), description);
  }
  return resolved ?? {};
}

function operations() {
  const all = [];
  for (const [path, item] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      all.push({ path, method, operation, id: operation.operationId, tag: (operation.tags || ["server"])[0] });
    }
  }
  return all;
}

const tagName = (tag) => (language === "zh-TW" && TAGS_ZH[tag]) || tag;

// --- What is shown of a schema ---

function schemaLink(ref) {
  const name = ref.split("/").pop();
  return make("a", { href: `#schema-${name}`, class: "mono" }, name);
}

/** A schema in one line. */
function typeOf(schema) {
  if (!schema || Object.keys(schema).length === 0) return [word("anything")];
  if (schema.$ref) return [schemaLink(schema.$ref)];
  if (schema.const !== undefined) return [make("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return [schema.enum.flatMap((value, index) => [index ? ", " : "", make("code", {}, JSON.stringify(value))])].flat();
  const choices = schema.oneOf || schema.anyOf;
  if (choices) {
    const rest = choices.filter((choice) => choice.type !== "null");
    const shown = rest.flatMap((choice, index) => [index ? " | " : "", ...typeOf(choice)]);
    return rest.length < choices.length ? [...shown, " ", word("orNull")] : shown;
  }
  if (schema.type === "array") return [word("listOf"), " ", ...typeOf(schema.items)];
  const types = [schema.type].flat().filter((type) => type && type !== "null");
  const text = [types.join(" | ") || word("anything"), schema.format ? ` (${schema.format})` : ""].join("");
  return [text, [schema.type].flat().includes("null") ? ` ${word("orNull")}` : ""];
}

function limits(schema) {
  const known = { minimum: "≥", maximum: "≤", minItems: "items ≥", maxItems: "items ≤", minLength: "length ≥", pattern: "~", default: "=" };
  const shown = Object.entries(known).filter(([key]) => schema[key] !== undefined);
  return shown.map(([key, sign]) => `${sign} ${typeof schema[key] === "string" ? schema[key] : JSON.stringify(schema[key])}`).join(", ");
}

/** A schema in full; what it refers to is a link. */
function schemaView(schema) {
  const view = make("div", {}, schema.description ? paragraphs(schema.description) : []);
  if (schema.properties) {
    const required = new Set(schema.required || []);
    const names = Object.keys(schema.properties);
    names.sort((a, b) => required.has(b) - required.has(a) || (b === "type") - (a === "type") || a.localeCompare(b));
    const rows = names.map((name) => {
      const field = schema.properties[name];
      const must = required.has(name) ? make("span", { class: "must", title: word("required") }, " *") : null;
      const limit = limits(field);
      return make("tr", {},
        make("td", {}, make("code", {}, name), must),
        make("td", {}, typeOf(field), limit ? make("span", { class: "quiet" }, ` ${limit}`) : null),
        make("td", {}, prose(field.description)));
    });
    const head = make("tr", {}, ["name", "type", "meaning"].map((key) => make("th", { scope: "col" }, word(key))));
    view.append(make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
  } else if (schema.oneOf || schema.anyOf) {
    view.append(make("p", {}, word("oneOf"), ":"));
    view.append(make("ul", {}, (schema.oneOf || schema.anyOf).map((choice) =>
      make("li", {}, choice.properties ? schemaView(choice) : typeOf(choice), choice.description ? [" — ", ...prose(choice.description)] : []))));
  } else {
    view.append(make("p", {}, typeOf(schema), " ", make("span", { class: "quiet" }, limits(schema))));
  }
  return view;
}

/** A value that fits a schema: what must be there, and no more. */
function sample(schema, depth = 0) {
  const known = resolve(schema);
  if (depth > 8) return null;
  if (known.const !== undefined) return known.const;
  if (known.examples) return known.examples[0];
  if (known.default !== undefined) return known.default;
  if (known.enum) return known.enum[0];
  const choices = known.oneOf || known.anyOf;
  if (choices) return sample(choices[0], depth + 1);
  switch ([known.type].flat()[0]) {
    case "object": {
      const value = {};
      const required = known.required || [];
      if (required.includes("type")) value.type = sample(known.properties.type, depth + 1);
      for (const name of required) value[name] = sample(known.properties?.[name], depth + 1);
      return value;
    }
    case "array": return known.minItems || depth === 1 ? [sample(known.items, depth + 1)] : [];
    case "integer": return known.minimum ?? 1;
    case "number": return 1;
    case "boolean": return true;
    case "string":
      if (known.format === "date") return new Date().toISOString().slice(0, 10);
      if (known.format === "date-time") return new Date().toISOString();
      return known.format === "uuid" ? newId() : "…";
    default: return null;
  }
}

/** A UUID of version 7: 48 bits of time, the rest luck. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const now = Date.now();
  for (let index = 0; index < 6; index += 1) bytes[index] = Math.floor(now / 2 ** (8 * (5 - index))) & 0xff;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// --- The views ---

function overview() {
  const curl = [
    `curl -s ${location.origin}/api/customer -H 'Content-Type: application/json' \\`,
    `  -H 'Idempotency-Key: ${newId()}' \\`,
    `  -d '{"type": "register", "kind": "organisation", "name": "宏達精密"}'`,
    "",
    `curl -s '${location.origin}/api/customers?at_least=<position>'`,
  ];
  return [
    make("h2", {}, description.info.title, " API"),
    ...paragraphs(description.info.description),
    make("pre", {}, curl.join("\n")),
    make("p", {}, make("a", { href: "/api/openapi.json" }, "/api/openapi.json"), " · ", make("a", { href: "/api/status" }, "/api/status")),
    make("h3", {}, word("problems")),
    make("p", {}, make("a", { href: "#problems" }, word("problemsAbout"))),
    make("h3", {}, word("schemas")),
    make("p", {}, Object.keys(description.components.schemas).flatMap((name, index) => [index ? " · " : "", make("a", { href: `#schema-${name}` }, name)])),
  ];
}

function problemsView(marked) {
  const rows = (description.components["x-problems"] || []).map((problem) =>
    make("tr", { id: `problem-${problem.name}`, "aria-current": problem.name === marked },
      make("td", {}, make("code", {}, problem.name)),
      make("td", {}, String(problem.status)),
      make("td", {}, (language === "zh-TW" && PROBLEMS_ZH[problem.name]) || problem.title)));
  const head = make("tr", {}, ["type", "status", "meaning"].map((key) => make("th", { scope: "col" }, word(key))));
  return [
    make("h2", {}, word("problems")),
    make("p", {}, word("problemsAbout")),
    make("table", {}, make("thead", {}, head), make("tbody", {}, rows)),
    make("h3", {}, word("fields")),
    schemaView(description.components.schemas.Problem),
  ];
}

function schemaPage(name) {
  const schema = description.components.schemas[name];
  if (!schema) return [make("p", {}, word("noneFound"))];
  return [make("h2", {}, name), schemaView(schema), make("details", {}, make("summary", {}, "JSON"), make("pre", {}, JSON.stringify(schema, null, 2)))];
}

function operationPage({ path, method, operation }) {
  const parameters = (operation.parameters || []).map(resolve);
  const content = operation.requestBody?.content?.["application/json"];
  const page = [
    make("h2", {}, operation.summary || operation.operationId),
    make("p", { class: "path mono" }, make("span", { class: `method ${method}` }, method.toUpperCase()), " ", path),
    ...paragraphs(operation.description),
    make("h3", {}, word("tryIt")),
    tryIt({ path, method, parameters, content }),
  ];
  if (content) page.push(make("h3", {}, word("body")), bodyView(content.schema));
  if (parameters.length) {
    const rows = parameters.map((parameter) => make("tr", {},
      make("td", {}, make("code", {}, parameter.name), parameter.required ? make("span", { class: "must" }, " *") : null),
      make("td", {}, parameter.in),
      make("td", {}, typeOf(parameter.schema)),
      make("td", {}, prose(parameter.description))));
    const head = make("tr", {}, ["name", "where", "type", "meaning"].map((key) => make("th", { scope: "col" }, word(key))));
    page.push(make("h3", {}, word("parameters")), make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
  }
  page.push(make("h3", {}, word("answers")));
  for (const [status, response] of Object.entries(operation.responses)) {
    const known = resolve(response);
    const body = known.content?.["application/json"] || known.content?.["application/problem+json"];
    const more = body?.schema ? make("div", {}, body.schema.$ref ? typeOf(body.schema) : schemaDetails(body.schema)) : null;
    page.push(make("p", {}, make("strong", {}, status), " ", prose(known.description), more));
  }
  return page;
}

/** The commands of a stream with their schemas, in their own order. */
function commandsOf(schema) {
  if (!schema.discriminator) return [];
  return schema.oneOf.map(resolve).map((fields) => [fields.properties.type.const, fields]);
}

/** The rows' columns are what people look for. */
function schemaDetails(schema) {
  const rows = schema.properties?.rows?.items;
  return [schemaView(schema), rows ? make("details", { open: true }, make("summary", {}, "rows"), schemaView(rows)) : null];
}

function bodyView(schema) {
  const known = resolve(schema);
  const commands = commandsOf(known);
  if (!commands.length) return make("div", {}, schema.$ref ? make("p", {}, typeOf(schema)) : null, schemaView(known));
  return make("div", {}, commands.map(([command, fields]) =>
    make("details", {}, make("summary", {}, make("code", {}, command), " ", make("span", { class: "quiet" }, prose(fields.description))), schemaView(fields))));
}

// --- Sending a request ---

function tryIt({ path, method, parameters, content }) {
  const fields = parameters.map((parameter) => ({ parameter, input: inputFor(parameter) }));
  const rows = fields.flatMap(({ parameter, input }) => {
    const label = make("label", { for: input.id, title: parameter.description }, parameter.name, parameter.required ? make("span", { class: "must" }, " *") : null);
    if (parameter.name !== "Idempotency-Key") return [label, input];
    const fresh = make("button", { type: "button", onclick: () => { input.value = newId(); } }, word("newId"));
    input.value = newId();
    return [label, make("div", { class: "with-button" }, input, fresh)];
  });
  // Filters by column are many; they are folded.
  const isColumn = ({ parameter }) => parameter["x-column"];
  const columnCount = fields.filter(isColumn).length;
  const grid = make("div", { class: "fields" }, rows.slice(columnCount * 2));
  const columns = columnCount
    ? make("details", {}, make("summary", {}, `${word("fields")} (${columnCount})`), make("div", { class: "fields" }, rows.slice(0, columnCount * 2)))
    : null;
  const text = content ? make("textarea", { spellcheck: "false", "aria-label": word("body") }) : null;
  const picker = content ? commandPicker(content, text) : null;
  const output = make("div", { "aria-live": "polite" });
  const button = make("button", { type: "submit", class: "main" }, word("send"));
  const shown = make("div", {});
  const request = () => prepared(path, method, fields, text);
  const curl = make("button", { type: "button", onclick: () => shown.replaceChildren(make("pre", {}, asCurl(request()))) }, word("copy"));
  const send = async (event) => {
    event.preventDefault();
    button.disabled = true;
    button.textContent = word("sending");
    output.replaceChildren(...(await answerTo(request(), (cursor) => {
      const field = fields.find(({ parameter }) => parameter.name === "cursor");
      if (!field) return;
      field.input.value = cursor;
      form.requestSubmit();
    })));
    button.disabled = false;
    button.textContent = word("send");
  };
  const form = make("form", { onsubmit: send }, columns, grid, picker, text, make("div", { class: "bar" }, button, curl), shown);
  return make("div", {}, form, output);
}

let inputs = 0;

function inputFor(parameter) {
  inputs += 1;
  const id = `input-${inputs}`;
  const schema = parameter.schema || {};
  if (schema.enum) {
    return make("select", { id }, make("option", { value: "" }, ""), schema.enum.map((value) => make("option", { value }, value)));
  }
  const hint = schema.default ?? schema.examples?.flat()[0] ?? "";
  return make("input", { id, type: "text", autocomplete: "off", spellcheck: "false", placeholder: String(hint), required: parameter.required });
}

function commandPicker(content, text) {
  const schema = resolve(content.schema);
  const show = (value) => {
    // The type is what one looks for first.
    text.value = JSON.stringify(value.type ? { type: value.type, ...value } : value, null, 2);
  };
  show(content.example ?? sample(schema));
  const commands = commandsOf(schema);
  if (!commands.length) return null;
  const options = commands.map(([command]) => make("option", { value: command, selected: command === content.example?.type }, command));
  const choose = (event) => {
    const command = event.target.value;
    show(command === content.example?.type ? content.example : sample(new Map(commands).get(command)));
  };
  inputs += 1;
  const id = `input-${inputs}`;
  return make("div", { class: "fields" }, make("label", { for: id }, word("command")), make("select", { id, onchange: choose }, options));
}

function prepared(path, method, fields, text) {
  const query = new URLSearchParams();
  const headers = {};
  let target = path;
  for (const { parameter, input } of fields) {
    const value = input.value.trim();
    if (!value) continue;
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === "query") query.append(parameter.name, value);
    else headers[parameter.name] = value;
  }
  const search = query.toString();
  if (text) headers["Content-Type"] = "application/json";
  return { url: search ? `${target}?${search}` : target, method: method.toUpperCase(), headers, body: text ? text.value : undefined };
}

function asCurl({ url, method, headers, body }) {
  const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
  const parts = [`curl -s -X ${method} ${quoted(location.origin + url)}`];
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) parts.push(`-d ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

async function answerTo({ url, method, headers, body }, nextPage) {
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(url, { method, headers, body });
    text = await response.text();
  } catch (error) {
    return [make("p", { class: "status bad" }, `${word("noAnswer")}: ${error.message}`)];
  }
  const took = Math.round(performance.now() - started);
  const json = parsed(text);
  const shown = ["etag", "location", "retry-after", "allow", "x-cursor", "x-known-until", "x-read-until", "x-definition"]
    .filter((name) => response.headers.has(name))
    .map((name) => `${name}: ${response.headers.get(name)}`);
  const cursor = json?.cursor;
  return [
    make("div", { class: "bar" },
      make("span", { class: response.ok ? "status" : "status bad" }, `${response.status} ${response.statusText}`),
      make("span", { class: "quiet" }, `${took} ms`),
      cursor ? make("button", { type: "button", onclick: () => nextPage(cursor) }, word("more")) : null),
    shown.length ? make("pre", {}, shown.join("\n")) : null,
    json?.rows?.length ? rowsTable(json.rows) : null,
    make("pre", {}, json === undefined ? text || word("nothing") : JSON.stringify(json, null, 2)),
  ].filter(Boolean);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function rowsTable(rows) {
  const columns = Object.keys(rows[0]);
  const cell = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const head = make("tr", {}, columns.map((column) => make("th", { scope: "col" }, column)));
  const body = rows.slice(0, 200).map((row) => make("tr", {}, columns.map((column) => make("td", {}, cell(row[column])))));
  return make("details", { open: true }, make("summary", {}, `rows (${rows.length})`),
    make("div", { class: "wide" }, make("table", {}, make("thead", {}, head), make("tbody", {}, body))));
}

// --- The frame ---

function list() {
  const wanted = document.getElementById("search").value.trim().toLowerCase();
  const current = location.hash.slice(1);
  const groups = new Map(description.tags.map(({ name }) => [name, []]));
  for (const entry of operations()) {
    const text = `${entry.path} ${entry.method} ${entry.operation.summary} ${entry.operation.description || ""} ${tagName(entry.tag)}`.toLowerCase();
    if (wanted && !text.includes(wanted)) continue;
    if (!groups.has(entry.tag)) groups.set(entry.tag, []);
    groups.get(entry.tag).push(entry);
  }
  const link = (href, children) => make("li", {}, make("a", { href: `#${href}`, "aria-current": href === current ? "page" : null }, children));
  const first = make("ul", {}, link("", word("overview")), link("problems", word("problems")));
  const rest = [...groups].filter(([, entries]) => entries.length).flatMap(([tag, entries]) => [
    make("h2", {}, tagName(tag)),
    make("ul", {}, entries.map(({ id, method, path }) =>
      link(`op-${id}`, [make("span", { class: `method ${method}` }, method.toUpperCase()), make("span", {}, path)]))),
  ]);
  document.getElementById("operations").replaceChildren(first, ...rest);
}

function show() {
  list();
  const place = decodeURIComponent(location.hash.slice(1));
  const content = document.getElementById("content");
  let view;
  if (place === "content") return;
  if (place.startsWith("op-")) {
    const entry = operations().find(({ id }) => `op-${id}` === place);
    view = entry ? operationPage(entry) : [make("p", {}, word("noneFound"))];
  } else if (place.startsWith("schema-")) view = schemaPage(place.slice("schema-".length));
  else if (place.startsWith("problem")) view = problemsView(place.slice("problem-".length));
  else view = overview();
  content.replaceChildren(...view.filter((part) => part !== null && part !== undefined));
  const marked = place.startsWith("problem-") ? document.getElementById(place) : null;
  if (marked) marked.scrollIntoView();
  else window.scrollTo(0, 0);
}

function label() {
  document.documentElement.lang = language;
  document.getElementById("language").textContent = word("language");
  for (const element of document.querySelectorAll("[data-label]")) element.textContent = word(element.dataset.label);
  for (const element of document.querySelectorAll("[data-label-placeholder]")) element.placeholder = word(element.dataset.labelPlaceholder);
  for (const element of document.querySelectorAll("[data-label-aria]")) element.setAttribute("aria-label", word(element.dataset.labelAria));
}

async function start() {
  label();
  document.getElementById("language").addEventListener("click", () => {
    language = language === "en" ? "zh-TW" : "en";
    try {
      localStorage.setItem("language", language);
    } catch {
      // A browser that keeps nothing asks again next time.
    }
    label();
    if (description) show();
  });
  try {
    const response = await fetch("/api/openapi.json");
    description = await response.json();
  } catch (error) {
    document.getElementById("content").replaceChildren(make("p", { class: "must" }, `${word("failed")}: ${error.message}`));
    return;
  }
  document.getElementById("version").textContent = description.info.version;
  document.getElementById("search").addEventListener("input", list);
  window.addEventListener("hashchange", () => {
    show();
    document.getElementById("content").focus({ preventScroll: true });
  });
  show();
}

start();
