// One candidate, large: its pictures, its facts, its grade.

const GRADE_KEYS = new Map([['a', 'A'], ['b', 'B'], ['c', 'C'], ['r', 'reject']]);

function factLines(i) {
  const lines = make('dl');
  for (const fact of DATA.facts) {
    const value = valueOf(fact.name, i);
    if (fact.name === 'viewer_url' || value === null || value === '' || (fact.name === 'merged' && !value)) continue;
    const text = shown(fact, value) + (fact.unit && fact.digits !== null ? unitText(fact.unit) : '');
    lines.append(make('dt', { title: fact.meaning }, fact.label), make('dd', {}, link(text, String(value))));
  }
  return lines;
}

function unitText(unit) {
  return { arcsec: '″', deg: '°', 'AB mag': ' mag', 'deg-2': ' per deg²' }[unit] ?? ` ${unit}`;
}

function skyLinks(i) {
  const links = make('p', { className: 'links' });
  if (DATA.blind) return links;
  const position = `${valueOf('ra', i)} ${valueOf('dec', i)}`;
  links.append(
    link('Sky viewer', valueOf('viewer_url', i) ?? ''),
    link('SIMBAD', `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${encodeURIComponent(position)}&Radius=10&Radius.unit=arcsec`),
    link('NED', `https://ned.ipac.caltech.edu/conesearch?search_type=Near%20Position%20Search&ra=${valueOf('ra', i)}d&dec=${valueOf('dec', i)}d&radius=0.2`),
  );
  return links;
}

function gradeButtons(i, sheet, act) {
  const bar = make('div', { className: 'grades' });
  for (const [key, grade] of GRADE_KEYS) {
    const button = make('button', { type: 'button', className: `grade-${grade}`, onclick: () => act.grade(grade) });
    button.append(make('b', {}, grade === 'reject' ? 'Reject' : grade), make('kbd', {}, key));
    button.setAttribute('aria-pressed', String(sheet.of(i).grade === grade));
    bar.append(button);
  }
  return bar;
}

function thetaControl(theta, act) {
  const slider = make('input', { id: 'theta', type: 'range', min: 0, max: 5, step: 0.1, value: theta });
  const text = make('output', {}, theta ? `${theta.toFixed(1)}″` : 'off');
  slider.addEventListener('input', () => act.theta(Number(slider.value)));
  return make('label', { className: 'theta' }, 'Circle, radius ', slider, text);
}

function viewerContent(i, place, total, sheet, theta, act) {
  const large = ['colour', 'faint'].map((n) => captioned(i, n, theta));
  const small = [...PANELS.keys()].filter((n) => n !== 'colour' && n !== 'faint').map((n) => captioned(i, n, theta));
  const notes = make('textarea', { id: 'notes', rows: 2, maxLength: 2000, value: sheet.of(i).notes, placeholder: 'Notes (n)' });
  notes.setAttribute('aria-label', 'notes');
  notes.addEventListener('input', () => act.notes(notes.value));
  const button = (text, title, onclick) => {
    const made = make('button', { type: 'button', title, onclick }, text);
    made.setAttribute('aria-label', title);
    return made;
  };
  const top = make('div', { className: 'bar' },
    button('✕', 'back to the gallery (Esc)', act.close),
    make('h2', {}, label(i)),
    make('span', { className: 'soft' }, `${place + 1} of ${total}`),
    button('←', 'the one before', () => act.move(-1)),
    button('→', 'the next', () => act.move(1)),
    button('↶', 'undo (u)', act.undo));
  return [
    top,
    make('div', { className: 'panes' },
      make('div', { className: 'plates' }, make('div', { className: 'large' }, ...large), make('div', { className: 'small' }, ...small)),
      make('aside', {}, thetaControl(theta, act), notes, skyLinks(i), factLines(i))),
    gradeButtons(i, sheet, act),
  ];
}

function captioned(i, name, theta) {
  const drawn = picture(i, name, theta);
  drawn.append(scaleBar());
  return make('figure', {}, drawn, make('figcaption', {}, PANELS.get(name).label));
}
