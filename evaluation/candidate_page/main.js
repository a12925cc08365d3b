// The page's state, what keys and buttons do to it, and what is drawn anew after that.

const KEYS = [
  ['a b c', 'grade A, B, C, and go on'], ['r', 'reject, and go on'], ['0', 'take the grade off'], ['u', 'undo'],
  ['n', 'write notes; Esc when done'], ['← → ↑ ↓', 'go to another candidate'], ['Enter', 'look at one; Esc back to the gallery'],
  ['o', 'circle on or off'], ['[ ]', 'smaller, larger circle: its radius is kept with the grade'], ['p', 'next kind of picture in the gallery'], ['s', 'smooth or square pixels'], ['/', 'find'], ['?', 'these keys'],
];
const sheet = new Sheet((text) => say(text));
const view = { sort: 'page', turned: false, filter: 'all', find: '', panel: 'colour' };
let order = [];
let place = 0; // of the selected item in the order
let open = false; // whether the viewer is
let circleOn = false;
let radius = 1.5; // of the circle where an item has none of its own, arcsec

const gallery = new Gallery(byId('gallery'), byId('cards'), (i) => card(i, sheet, view.panel, order[place] === i, thetaOf(i)));
const selected = () => order[place];
const thetaOf = (i) => (circleOn ? Number(sheet.of(i).theta) || radius : 0);

function say(text) {
  byId('message').textContent = text;
  byId('message').hidden = !text;
}

function relist() {
  const was = selected();
  order = listed(sheet, view);
  place = Math.max(0, order.indexOf(was));
  byId('count').textContent = `${order.length.toLocaleString('en')} shown`;
  gallery.show(order, view.panel === 'all');
  draw();
}

function draw() {
  const graded = sheet.graded();
  byId('done').textContent = `${graded.toLocaleString('en')} of ${COUNT.toLocaleString('en')} graded`;
  byId('progress').max = COUNT;
  byId('progress').value = graded;
  const seen = open && order.length > 0;
  byId('viewer').hidden = !seen;
  document.querySelector('header').inert = byId('gallery').inert = seen;
  if (seen) byId('viewer').replaceChildren(...viewerContent(selected(), place, order.length, sheet, thetaOf(selected()), act));
}

function go(to) {
  const from = place;
  place = Math.max(0, Math.min(to, order.length - 1));
  gallery.update(from);
  gallery.update(place);
  gallery.reveal(place);
  draw();
}

const act = {
  grade(grade) {
    if (!order.length) return;
    const i = selected();
    sheet.set(i, { grade });
    say('');
    const next = order[place + 1];
    if (FILTERS.get(view.filter).keep(sheet.of(i), i)) return go(place + (grade ? 1 : 0));
    relist(); // it left the list; the next one is the one to go on with
    go(next === undefined ? order.length - 1 : order.indexOf(next));
  },
  notes(notes) {
    sheet.set(selected(), { notes }, true);
    gallery.update(place);
  },
  theta(theta) {
    if (!order.length) return;
    circleOn = theta > 0;
    if (circleOn) {
      radius = theta;
      sheet.set(selected(), { theta: theta.toFixed(1) }, true);
    }
    gallery.refresh();
    redrawCircles(theta);
  },
  undo() {
    const i = sheet.undo();
    if (i === null) return say('There is nothing to undo.');
    relist();
    if (order.includes(i)) go(order.indexOf(i));
  },
  move: (by) => go(place + by),
  close() {
    open = false;
    draw();
    gallery.refresh();
    byId('gallery').focus();
  },
};

// Draw circles anew without the slider that is being dragged.
function redrawCircles(theta) {
  const viewer = byId('viewer');
  viewer.querySelectorAll('.circle').forEach((ring) => ring.remove());
  if (theta) viewer.querySelectorAll('.picture').forEach((box) => box.append(circle(selected(), theta)));
  const output = viewer.querySelector('.theta output');
  if (output) output.textContent = theta ? `${theta.toFixed(1)}″` : 'off';
  const slider = byId('theta');
  if (slider) slider.value = theta;
}

function onKey(event) {
  const typing = event.target.matches('input:not([type=range]), textarea, select');
  if (event.key === 'Escape') {
    if (typing) return event.target.blur();
    if (open && !byId('keys').open) act.close();
    return;
  }
  if (typing || event.altKey || byId('keys').open || ((event.ctrlKey || event.metaKey) && event.key !== 'z')) return;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: open ? -1 : -gallery.columns, ArrowDown: open ? 1 : gallery.columns }[event.key];
  const theta = thetaOf(selected()) || radius;
  const todo = {
    0: () => act.grade(''), u: act.undo, z: event.ctrlKey || event.metaKey ? act.undo : null,
    n: note, o: () => toggleCircle(), '[': () => act.theta(Math.max(0.3, theta - 0.1)), ']': () => act.theta(Math.min(5, theta + 0.1)),
    p: () => nextPanel(), s: () => document.body.classList.toggle('smooth'), '/': find, '?': () => byId('keys').showModal(), Enter: () => look(place),
    Home: () => go(0), End: () => go(order.length - 1),
  }[event.key];
  const grade = GRADE_KEYS.get(event.key.toLowerCase());
  if (event.target.matches('button, summary, a') && (event.key === 'Enter' || event.key === ' ')) return; // theirs
  if (grade) act.grade(grade);
  else if (step) go(place + step);
  else if (todo) todo();
  else return;
  event.preventDefault();
}

function look(at) {
  if (!order.length) return;
  open = true;
  go(at);
}

function note() {
  if (!open) look(place);
  byId('notes')?.focus();
}

function find() {
  if (open) act.close();
  byId('find').focus();
}

function toggleCircle() {
  circleOn = !circleOn;
  gallery.refresh();
  redrawCircles(thetaOf(selected()));
}

function nextPanel() {
  const names = [...PANELS.keys(), 'all'];
  view.panel = names[(names.indexOf(view.panel) + 1) % names.length];
  byId('panel').value = view.panel;
  relist();
}

function exportCsv() {
  if (!sheet.grader) {
    say('Type your name as grader first: the file is merged with others by it.');
    return byId('grader').focus();
  }
  const address = URL.createObjectURL(new Blob([gradesToCsv(sheet)], { type: 'text/csv' }));
  const name = sheet.grader.replaceAll(/[^\p{L}\p{N}_-]+/gu, '-');
  make('a', { href: address, download: `grades-${name}-${DATA.page}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function importCsv(file) {
  try {
    const changes = gradesFromCsv(await file.text(), sheet);
    if (changes.length) sheet.apply(changes);
    relist();
    say(`${file.name}: ${changes.length} grades taken over; what is here and later stays.`);
  } catch (error) {
    say(`${file.name} was not imported: ${error.message}.`);
  }
}

function fill(id, options) {
  byId(id).append(...options.map(([value, text]) => make('option', { value }, text)));
  byId(id).value = view[id];
  byId(id).addEventListener('change', () => {
    view[id] = byId(id).value;
    byId(id).blur(); // keys are for grading again
    relist();
  });
}

fill('sort', [...SORTS].map(([name, { text }]) => [name, text]));
fill('filter', [...FILTERS].map(([name, { text }]) => [name, text]));
fill('panel', [...[...PANELS.values()].map((p) => [p.name, p.label]), ['all', 'all of them']]);
byId('turn').addEventListener('click', () => {
  view.turned = !view.turned;
  byId('turn').textContent = view.turned ? '↑' : '↓';
  relist();
});
byId('find').placeholder = DATA.blind ? 'number or notes' : 'name, brick, notes, or RA Dec';
byId('find').addEventListener('input', () => {
  view.find = byId('find').value;
  relist();
});
byId('grader').value = sheet.grader;
byId('grader').addEventListener('change', () => {
  sheet.rename(byId('grader').value.trim());
  relist();
});
byId('export').addEventListener('click', exportCsv);
byId('import').addEventListener('click', () => byId('file').click());
byId('file').addEventListener('change', () => {
  if (byId('file').files.length) importCsv(byId('file').files[0]);
  byId('file').value = '';
});
byId('help').addEventListener('click', () => byId('keys').showModal());
byId('cards').addEventListener('click', (event) => {
  const clicked = event.target.closest('.card');
  if (clicked) look(order.indexOf(Number(clicked.dataset.i)));
});
byId('keys').append(
  make('h2', {}, 'Keys'),
  make('dl', {}, ...KEYS.flatMap(([key, what]) => [make('dt', {}, ...key.split(' ').map((k) => make('kbd', {}, k))), make('dd', {}, what)])),
  make('p', { className: 'soft' }, `North is up, east left; a picture is ${FIELD.toFixed(1)}″ wide, its bar 5″. ${COUNT.toLocaleString('en')} pictures${DATA.blind ? '' : ` of ${DATA.n_rows.toLocaleString('en')} rows`}. Grades stay in this browser until you export them.`),
  make('p', { className: 'soft' }, `Page ${DATA.page}, catalogue ${DATA.catalogue}, made ${DATA.made} with ${DATA.code_version}.`),
  make('button', { type: 'button', onclick: () => byId('keys').close() }, 'Close'));
byId('message').addEventListener('click', () => say(''));
document.addEventListener('keydown', onKey);
window.addEventListener('storage', ({ key }) => {
  if (key !== sheet.key(sheet.grader)) return;
  sheet.load(); // graded in another window
  relist();
});
relist();
