"use strict";
// Shows /openapi.json: every operation with its parameters, body, answers, and the action that it needs.

const methods = ["get", "post", "put", "patch", "delete"];

function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  e.append(...children.filter((c) => c !== undefined && c !== null && c !== ""));
  return e;
}

function resolve(doc, schema) {
  const seen = new Set();
  while (schema && schema.$ref && !seen.has(schema.$ref)) {
    seen.add(schema.$ref);
    schema = doc.components.schemas[schema.$ref.split("/").pop()];
  }
  return schema || {};
}

function typeName(doc, schema) {
  const s = resolve(doc, schema);
  const type = [].concat(s.type || (s.properties ? "object" : "any")).filter((t) => t !== "null").join(" or ");
  if (type === "array") return "list of " + typeName(doc, s.items || {});
  return s.format ? type + " (" + s.format + ")" : type;
}

function limits(schema) {
  const words = [];
  if (schema.enum) words.push("one of " + schema.enum.join(", "));
  if (schema.default !== undefined) words.push("default " + schema.default);
  if (schema.minimum !== undefined) words.push("at least " + schema.minimum);
  if (schema.maximum !== undefined) words.push("at most " + schema.maximum);
  if (schema.maxLength !== undefined) words.push("at most " + schema.maxLength + " characters");
  const text = words.join("; ");
  return text && text[0].toUpperCase() + text.slice(1) + ".";
}

function rows(list) {
  const body = el("tbody");
  for (const [name, type, needed, text] of list) {
    body.append(el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, type), el("td", {}, needed ? "required" : "optional"), el("td", {}, text)));
  }
  const head = el("thead", {}, el("tr", {}, ...["Name", "Type", "", "Meaning"].map((h) => el("th", { scope: "col" }, h))));
  return el("table", {}, head, body);
}

function fields(doc, schema) {
  const s = resolve(doc, schema);
  const of = s.type === "array" || [].concat(s.type).includes("array") ? resolve(doc, s.items) : s;
  const properties = Object.entries(of.properties || {});
  if (!properties.length) return el("p", {}, typeName(doc, schema));
  return rows(properties.map(([name, p]) => {
    const r = resolve(doc, p);
    return [name, typeName(doc, p), (of.required || []).includes(name), [p.description || r.description, limits(r)].filter(Boolean).join(" ")];
  }));
}

function operation(doc, method, path, op) {
  const inner = el("div", { class: "inner" });
  if (op.description) inner.append(el("p", {}, op.description));
  inner.append(el("p", {}, "Needs ", el("code", {}, op["x-sluice-action"] || "nothing")));
  const parameters = op.parameters || [];
  if (parameters.length) {
    inner.append(el("h3", {}, "Parameters"));
    inner.append(rows(parameters.map((p) => [p.name, p.in + ", " + typeName(doc, p.schema || {}), p.required, [p.description, limits(p.schema || {})].filter(Boolean).join(" ")])));
  }
  for (const content of Object.values((op.requestBody || {}).content || {})) {
    inner.append(el("h3", {}, "Body"), fields(doc, content.schema));
  }
  for (const [status, answer] of Object.entries(op.responses || {})) {
    inner.append(el("h3", {}, (status === "default" ? "Errors" : status) + (answer.description ? ": " + answer.description : "")));
    for (const content of Object.values(answer.content || {})) inner.append(fields(doc, content.schema));
  }
  const head = el("summary", {}, el("span", { class: "method" }, method.toUpperCase()), el("span", { class: "path" }, path), el("span", { class: "does" }, op.summary || ""));
  const details = el("details", { id: op.operationId || method + path }, head, inner);
  details.dataset.text = [method, path, op.summary, op.description, op.operationId, op["x-sluice-action"]].join(" ").toLowerCase();
  return details;
}

function show(doc) {
  document.getElementById("about").textContent = doc.info.description + " Version " + doc.info.version + ".";
  const groups = new Map();
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const method of methods) {
      if (!item[method]) continue;
      const tag = (item[method].tags || ["Other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(doc, method, path, item[method]));
    }
  }
  const main = document.getElementById("operations");
  main.replaceChildren(...[...groups].map(([tag, list]) => el("section", {}, el("h2", {}, tag), ...list)));
  const filter = document.getElementById("filter");
  const find = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const d of main.querySelectorAll("details")) {
      d.hidden = !words.every((w) => d.dataset.text.includes(w));
      if (!d.hidden) n++;
    }
    for (const s of main.querySelectorAll("section")) s.hidden = !s.querySelector("details:not([hidden])");
    document.getElementById("count").textContent = n + (n === 1 ? " operation" : " operations");
  };
  filter.addEventListener("input", find);
  find();
  const chosen = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (chosen) { chosen.open = true; chosen.scrollIntoView(); }
}

fetch("/openapi.json").then((r) => {
  if (!r.ok) throw new Error("the server says " + r.status);
  return r.json();
}).then(show).catch((e) => {
  document.getElementById("operations").replaceChildren(el("p", { role: "alert" }, "The document can't be shown: " + e.message));
});
