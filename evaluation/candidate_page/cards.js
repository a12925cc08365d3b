// Pictures of an item, and its card in the gallery.

const PANELS = new Map(DATA.panels.map((panel, number) => [panel.name, { ...panel, number }]));
const sprites = new Map();

// The address of a sprite. In a page of one file it is made of the page's own bytes when it is first seen.
function spriteAddress(number) {
  if (!DATA.inline) return DATA.sprites[number];
  if (!sprites.has(number)) {
    const bytes = Uint8Array.from(atob(DATA.sprites[number]), (c) => c.charCodeAt(0));
    sprites.set(number, URL.createObjectURL(new Blob([bytes], { type: 'image/jpeg' })));
  }
  return sprites.get(number);
}

function picture(i, name, theta = 0) {
  const panel = PANELS.get(name);
  const box = make('div', { className: 'picture', role: 'img' });
  box.setAttribute('aria-label', `${label(i)}, ${panel.label}`);
  const number = Math.floor(i / DATA.per_sprite);
  const rows = Math.min(DATA.per_sprite, COUNT - number * DATA.per_sprite);
  const row = i % DATA.per_sprite;
  const part = (k, n) => (n > 1 ? (100 * k) / (n - 1) : 0);
  box.style.backgroundImage = `url("${spriteAddress(number)}")`;
  box.style.backgroundSize = `${100 * PANELS.size}% ${100 * rows}%`;
  box.style.backgroundPosition = `${part(panel.number, PANELS.size)}% ${part(row, rows)}%`;
  const band = name.startsWith('band_') ? name.slice(5) : '';
  if (band && !(valueOf('bands', i) ?? band).includes(band)) box.append(make('span', { className: 'absent' }, `no ${band}`));
  if (theta) box.append(circle(i, theta));
  return box;
}

function circle(i, theta) {
  const [x, y] = DATA.centres[i];
  const ring = make('span', { className: 'circle' });
  ring.style.left = `${(100 * (x + 0.5)) / DATA.size}%`;
  ring.style.top = `${100 - (100 * (y + 0.5)) / DATA.size}%`;
  ring.style.width = `${(200 * theta) / FIELD}%`;
  return ring;
}

function scaleBar() {
  const bar = make('span', { className: 'scale' }, '5″');
  bar.style.width = `${500 / FIELD}%`;
  return bar;
}

function gradeMark(grade) {
  return make('span', { className: `mark grade-${grade}` }, grade === 'reject' ? '✕' : grade);
}

function cardText(i) {
  if (DATA.blind) return [make('b', {}, label(i))];
  const short = label(i).replace(/^DHS /, ''); // room for the whole position
  const first = make('span', { className: 'line' }, make('b', {}, `${valueOf('rank', i)}`), ' ', short);
  const score = ['logit', 'probability'].filter((n) => valueOf(n, i) !== null);
  const second = make('span', { className: 'line soft' }, score.map((n) => `${n === 'logit' ? 'logit' : 'p'} ${shown(FACTS.get(n), valueOf(n, i))}`).join(' · '));
  return [first, second];
}

function card(i, sheet, panel, selected, theta) {
  const entry = sheet.of(i);
  const element = make('button', { type: 'button', className: 'card', tabIndex: -1 });
  element.dataset.i = i;
  element.classList.toggle('selected', selected);
  element.classList.toggle('rejected', entry.grade === 'reject');
  const names = panel === 'all' ? [...PANELS.keys()] : [panel];
  const pictures = make('span', { className: names.length > 1 ? 'pictures many' : 'pictures' }, ...names.map((n) => picture(i, n, theta)));
  pictures.firstChild.append(scaleBar());
  element.append(pictures, make('span', { className: 'text' }, ...cardText(i)));
  const marks = make('span', { className: 'marks' });
  if (valueOf('known_name', i)) marks.append(make('span', { className: 'mark known', title: 'known lens or candidate' }, 'known'));
  if (valueOf('outside', i)) marks.append(make('span', { className: 'mark outside', title: 'beyond the training' }, '!'));
  if (entry.notes) marks.append(make('span', { className: 'mark', title: 'has notes' }, '✎'));
  if (entry.grade) marks.append(gradeMark(entry.grade));
  pictures.firstChild.append(marks);
  return element;
}
