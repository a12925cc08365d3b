// The page's data, and small helpers to make elements. Text from the catalogue only ever becomes a text node.

const DATA = JSON.parse(document.getElementById('data').textContent);
const COUNT = DATA.items.length;
const FIELD = DATA.size * DATA.pixel_arcsec; // width of a stamp, arcsec
const INDEX = new Map(DATA.items.map((item, i) => [item, i]));
const FACTS = new Map(DATA.facts.map((fact) => [fact.name, fact]));

const byId = (id) => document.getElementById(id);

// The value of a fact for an item; null where it is not known or the page does not say it.
const valueOf = (name, i) => (name in DATA.values ? DATA.values[name][i] : null);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function shown(fact, value) {
  if (value === null || value === '') return '–';
  if (fact.digits === null) return value;
  return fact.significant ? String(Number(value.toPrecision(fact.digits))) : value.toFixed(fact.digits);
}

// How an item is called: on a blinded page only its number.
function label(i) {
  return DATA.blind ? `No. ${i + 1}` : valueOf('name', i) ?? DATA.items[i];
}

// An address that a link may lead to; null for anything else (javascript:, data:, file:).
function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
  } catch {
    return null;
  }
}

function link(text, address) {
  const href = webAddress(address);
  return href ? make('a', { href, target: '_blank', rel: 'noopener noreferrer' }, text) : text;
}
