// Which items are listed, and in which order.

const GRADE_FILTERS = [
  ['all', 'all', () => true],
  ['ungraded', 'not graded', (e) => !e.grade],
  ...[...DATA.grades].reverse().map((g) => [`grade-${g}`, g === 'reject' ? 'rejected' : `grade ${g}`, (e) => e.grade === g]),
  ['noted', 'with notes', (e) => e.notes !== ''],
];
const FACT_FILTERS = DATA.blind
  ? []
  : [
      ['known', 'known lenses', (e, i) => Boolean(valueOf('known_name', i))],
      ['new', 'not known', (e, i) => !valueOf('known_name', i)],
      ['outside', 'beyond the training', (e, i) => Boolean(valueOf('outside', i))],
      ...[...new Set(DATA.values.type)].sort().map((type) => [`type-${type}`, `type ${type}`, (e, i) => DATA.values.type[i] === type]),
    ];
const FILTERS = new Map([...GRADE_FILTERS, ...FACT_FILTERS].map(([name, text, keep]) => [name, { text, keep }]));

const SORTS = new Map([
  ['page', { text: DATA.blind ? 'page' : 'rank', key: (i) => i }],
  ['grade', { text: 'grade', key: (i, sheet) => { const g = DATA.grades.indexOf(sheet.of(i).grade); return g < 0 ? null : -g; } }],
  ...DATA.facts
    .filter((f) => f.digits !== null && f.name !== 'rank' && !f.label.startsWith('…'))
    .map((f) => [f.name, { text: f.label, key: (i) => DATA.values[f.name][i] }]),
]);

const SEARCHED = ['name', 'object_name', 'known_name', 'known_reference', 'brickname', 'outside'].filter((n) => n in DATA.values);

// A test of items for what was typed: "RA Dec" in degrees finds what is within an arcminute, words find text.
function finder(text, sheet) {
  const position = /^\s*(\d+(?:\.\d+)?)[\s,]+([+-]?\d+(?:\.\d+)?)\s*$/.exec(text);
  if (position && !DATA.blind) {
    const [ra, dec] = [Number(position[1]), Number(position[2])];
    return (i) => {
      const across = (((DATA.values.ra[i] - ra + 540) % 360) - 180) * Math.cos((dec * Math.PI) / 180);
      return Math.hypot(across, DATA.values.dec[i] - dec) * 60 <= 1;
    };
  }
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (i) => {
    const all = [label(i), sheet.of(i).notes, ...SEARCHED.map((n) => DATA.values[n][i] ?? '')].join('\n').toLowerCase();
    return words.every((word) => all.includes(word));
  };
}

function listed(sheet, { sort, turned, filter, find }) {
  const { keep } = FILTERS.get(filter);
  const found = finder(find, sheet);
  const { key } = SORTS.get(sort);
  const rows = [];
  for (let i = 0; i < COUNT; i++) if (keep(sheet.of(i), i) && found(i)) rows.push([key(i, sheet), i]);
  const sign = turned ? -1 : 1;
  rows.sort(([a, i], [b, j]) => {
    if (a === null || b === null) return (a === null) - (b === null) || i - j; // what is not known comes last
    return sign * (a - b) || i - j;
  });
  return rows.map(([, i]) => i);
}
