// Renders openapi.json. Text nodes only: nothing of the document becomes markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

function element(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  for (const child of children.flat()) if (child !== null) node.append(child);
  return node;
}

function refName(schema) {
  return schema && schema.$ref ? schema.$ref.split("/").pop() : null;
}

// An example value of a schema, as JSON would show it.
function sample(spec, schema, depth) {
  if (!schema || depth > 6) return null;
  const name = refName(schema);
  if (name) return sample(spec, spec.components.schemas[name], depth + 1);
  if (schema.oneOf) return sample(spec, schema.oneOf.find((one) => one.type !== "null") || null, depth + 1);
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  if (type === "object") {
    const out = {};
    for (const [key, value] of Object.entries(schema.properties || {})) out[key] = sample(spec, value, depth + 1);
    return out;
  }
  if (type === "array") return [sample(spec, schema.items, depth + 1)];
  if (type === "string") return schema.format === "date-time" ? "2026-01-01T00:00:00Z" : "string";
  if (type === "integer" || type === "number") return schema.minimum || 0;
  if (type === "boolean") return false;
  return null;
}

function bounds(schema) {
  const parts = [];
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type;
  if (type) parts.push(schema.format || type);
  for (const key of ["minimum", "maximum", "minLength", "maxLength", "pattern", "default"]) {
    if (schema[key] !== undefined) parts.push(`${key} ${schema[key]}`);
  }
  if (schema.enum) parts.push(schema.enum.join(", "));
  return parts.join("; ");
}

function parameters(operation) {
  if (!operation.parameters) return null;
  const rows = operation.parameters.map((parameter) =>
    element("tr", {},
      element("td", {}, element("code", {}, parameter.name), parameter.required ? " *" : ""),
      element("td", {}, parameter.in),
      element("td", {}, parameter.description || ""),
      element("td", {}, bounds(parameter.schema || {}))));
  return [element("h3", {}, "Parameters"), element("table", {}, element("tbody", {}, rows))];
}

function jsonBlock(spec, title, schema) {
  if (!schema) return null;
  const name = refName(schema);
  return [
    element("h3", {}, name ? `${title}: ${name}` : title),
    element("pre", {}, JSON.stringify(sample(spec, schema, 0), null, 2)),
  ];
}

function contentSchema(part) {
  const json = part && part.content && part.content["application/json"];
  return json ? json.schema : null;
}

function details(spec, operation) {
  const answers = Object.entries(operation.responses).map(([status, response]) =>
    element("tr", {}, element("td", {}, status), element("td", {}, response.description), element("td", {}, refName(contentSchema(response)) || "")));
  const success = Object.entries(operation.responses).find(([status]) => status.startsWith("2"));
  return element("div", {},
    operation["x-scope"] ? element("p", {}, "Scope: ", element("code", {}, operation["x-scope"])) : null,
    parameters(operation),
    jsonBlock(spec, "Body", contentSchema(operation.requestBody)),
    success ? jsonBlock(spec, "Answer", contentSchema(success[1])) : null,
    element("h3", {}, "Answers"),
    element("table", {}, element("tbody", {}, answers)));
}

function render(spec, filter) {
  const groups = new Map();
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const text = `${method} ${path} ${operation.operationId} ${operation.summary} ${operation.tags}`.toLowerCase();
      if (filter && !text.includes(filter)) continue;
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      const head = element("summary", {},
        element("span", { class: "method" }, method.toUpperCase()),
        element("span", { class: "path" }, path),
        element("span", { class: "about" }, operation.summary));
      const node = element("details", { id: operation.operationId }, head);
      // Built when opened: the page stays light.
      node.addEventListener("toggle", () => {
        if (node.open && node.childElementCount === 1) node.append(details(spec, operation));
      });
      groups.get(tag).push(node);
    }
  }
  const sections = [...groups].map(([tag, nodes]) =>
    element("section", { id: `tag-${tag.replaceAll(" ", "-")}` }, element("h2", {}, tag), nodes));
  document.getElementById("operations").replaceChildren(...(sections.length ? sections : [element("p", {}, "Nothing matches.")]));
  document.getElementById("tags").replaceChildren(...[...groups.keys()].map((tag) =>
    element("a", { href: `#tag-${tag.replaceAll(" ", "-")}` }, tag)));
}

async function start() {
  const main = document.getElementById("operations");
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    const spec = await response.json();
    const input = document.getElementById("filter");
    input.addEventListener("input", () => render(spec, input.value.trim().toLowerCase()));
    render(spec, "");
    if (location.hash) {
      const node = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (node) { node.open = true; node.scrollIntoView(); }
    }
  } catch (error) {
    main.replaceChildren(element("p", {}, `openapi.json could not be loaded: ${error.message}`));
  }
}

start();
