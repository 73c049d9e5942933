"use strict";

const byId = (id) => document.getElementById(id);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const code = (text) => element("code", { textContent: text });

function kind(schema) {
  const type = schema.enum ? schema.enum.join(", ") : [].concat(schema.type ?? "any").join(" or ");
  const bounds = [schema.minimum !== undefined && `from ${schema.minimum}`, schema.maximum !== undefined && `to ${schema.maximum}`];
  return [type, ...bounds.filter(Boolean)].join(" ");
}

function keys(title, rows) {
  const head = element("tr", {}, ...[title, "type", "default", ""].map((text) => element("th", { textContent: text, scope: "col" })));
  const body = rows.map(([name, schema, told]) => element("tr", {},
    element("td", {}, code(name)), element("td", { textContent: kind(schema) }),
    element("td", {}, code(schema.default === undefined ? "" : JSON.stringify(schema.default))),
    element("td", { textContent: told ?? "" })));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function example(method, path, types) {
  const url = `${location.origin}${path}`;
  const json = types["application/json"]?.schema.example;
  if (json) return `curl -d '${JSON.stringify(json)}' -H 'Content-Type: application/json' ${url} -o samples.png`;
  if (Object.keys(types).length) return `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' ${url} -o translated.png`;
  return method === "get" ? `curl ${url}` : `curl -X ${method.toUpperCase()} ${url}`;
}

function operation(path, method, about) {
  const types = about.requestBody?.content ?? {};
  const card = element("section", { className: "card" }, element("h2", {}, code(`${method.toUpperCase()} ${path}`), ` ${about.summary}`));
  if (about.parameters?.length) {
    card.append(keys("in the URL", about.parameters.map((one) => [one.name, one.schema, one.description])));
  }
  const properties = types["application/json"]?.schema.properties;
  if (properties) card.append(keys("in the body", Object.entries(properties).map(([name, schema]) => [name, schema, schema.description])));
  if (Object.keys(types).length) card.append(element("p", { textContent: `Content-Type: ${Object.keys(types).join(", ")}` }));
  const answers = Object.entries(about.responses).map(([status, answer]) => `${status} ${Object.keys(answer.content ?? {}).join(" or ")}`);
  card.append(element("p", { textContent: `Answers: ${answers.join("; ")}` }));
  card.append(element("pre", { textContent: example(method, path, types), tabIndex: 0 }));
  return card;
}

async function start() {
  const response = await fetch("openapi.json");
  const found = await response.json();
  byId("about").textContent = found.info?.description ?? found.detail;
  for (const [path, methods] of Object.entries(found.paths ?? {})) {
    for (const [method, about] of Object.entries(methods)) byId("operations").append(operation(path, method, about));
  }
  document.body.dataset.ready = "1";
}

start();
