// Shows the OpenAPI document: no library, nothing from elsewhere, and text only ever as text.
'use strict';

const make = (tag, text, children = []) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
};

// Text in which `…` is code.
const prose = (tag, text) =>
  make(tag, undefined, text.split('`').map((part, i) => (i % 2 ? make('code', part) : part)));

const show = (api) => {
  const resolve = (schema) =>
    schema && schema.$ref ? resolve(api.components.schemas[schema.$ref.split('/').pop()]) : schema || {};

  // One object out of a schema and everything that it is made of.
  const fields = (schema) => {
    const s = resolve(schema);
    const all = { ...(s.properties || {}) };
    for (const part of s.allOf || []) Object.assign(all, fields(part));
    return all;
  };

  const kind = (schema) => {
    if (!schema) return '';
    if (schema.$ref) {
      const s = resolve(schema);
      return s.properties || s.allOf || s.oneOf ? schema.$ref.split('/').pop() : kind(s);
    }
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
    const one = schema.oneOf || schema.anyOf;
    if (one) return one.map(kind).filter((name) => name !== 'null').join(' | ');
    if (schema.type === 'array' || (schema.type || []).includes?.('array')) return `[${kind(schema.items)}]`;
    const type = [].concat(schema.type || 'any').filter((name) => name !== 'null').join(' | ');
    return schema.format ? `${type} (${schema.format})` : type;
  };

  const about = (schema) => schema.description || resolve(schema).description || '';

  const table = (rows) =>
    make('table', undefined, rows.map(([name, type, text]) =>
      make('tr', undefined, [make('th', undefined, [make('code', name)]), make('td', type), prose('td', text)])));

  const body = (title, schema) => {
    const all = Object.entries(fields(schema));
    const list = resolve(schema).type === 'array' ? [] : all;
    const parts = [make('h4', `${title}: ${kind(schema)}`)];
    if (list.length) parts.push(table(list.map(([name, s]) => [name, kind(s), about(s)])));
    for (const choice of resolve(schema).oneOf || []) parts.push(...body('either', choice));
    return parts;
  };

  document.getElementById('about').replaceWith(prose('p', `${api.info.description} Version ${api.info.version}.`));
  const contents = make('ul');
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of ['get', 'post', 'put', 'delete']) {
      const operation = item[method];
      if (!operation) continue;
      const id = `${method}-${path.replace(/[^a-z]+/gi, '-')}`;
      const link = make('a', undefined, [make('span', method.toUpperCase()), make('code', ` ${path}`)]);
      link.firstChild.className = 'method';
      link.href = `#${id}`;
      contents.append(make('li', undefined, [link]));

      const title = make('h3', undefined, [make('span', method.toUpperCase()), make('span', path)]);
      title.firstChild.className = 'method';
      title.lastChild.className = 'path';
      const article = make('article', undefined, [title]);
      article.id = id;
      article.append(prose('p', [operation.summary, operation.description].filter(Boolean).join('. ')));
      const who = (operation.security || []).flatMap((scheme) => Object.keys(scheme));
      article.append(make('p', who.length ? `Credentials: ${who.join(' or ')}.` : 'No credentials needed.'));
      const parameters = operation.parameters || [];
      if (parameters.length) {
        article.append(make('h4', 'Parameters'));
        article.append(table(parameters.map((p) =>
          [p.name, `${p.in}${p.required ? ', required' : ''}: ${kind(p.schema)}`, p.description || ''])));
      }
      const request = operation.requestBody && Object.values(operation.requestBody.content)[0];
      if (request) article.append(...body('Body', request.schema));
      article.append(make('h4', 'Answers'));
      article.append(table(Object.entries(operation.responses).sort().map(([status, answer]) => {
        const schemas = Object.values(answer.content || {}).map((content) => kind(content.schema));
        return [status, schemas.join(' or '), answer.description];
      })));
      for (const answer of Object.entries(operation.responses).filter(([status]) => status < '300').slice(0, 1)) {
        for (const content of Object.values(answer[1].content || {})) {
          article.append(...body(`Answer ${answer[0]}`, content.schema));
        }
      }
      const tag = (operation.tags || ['other'])[0];
      if (!groups.has(tag)) groups.set(tag, make('section', undefined, [make('h2', tag)]));
      groups.get(tag).append(article);
    }
  }
  document.getElementById('contents').append(contents);
  document.getElementById('routes').append(...groups.values());
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
};

fetch('/api/openapi.json')
  .then((response) => response.json())
  .then(show)
  .catch((error) => { document.getElementById('about').textContent = `The document could not be loaded: ${error}`; });
