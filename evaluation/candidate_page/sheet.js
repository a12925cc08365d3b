// One grader's grades of this page: given, taken back, and kept in the browser.

const EMPTY = Object.freeze({ grade: '', notes: '', theta: '', time: '' });
const PLACE = `dark-halo-scope/${DATA.catalogue}/${DATA.page}`;

class Sheet {
  constructor(complain) {
    this.complain = complain; // called with a sentence when the browser does not keep the grades
    this.grader = this.read(`${PLACE}/last`, '');
    this.load();
  }

  load() {
    const kept = this.read(this.key(this.grader), {});
    this.entries = new Map(Object.entries(kept).filter(([item]) => INDEX.has(item)));
    this.steps = []; // what undo takes back: lists of [item, entry before]
  }

  key(grader) {
    return `${PLACE}/grader/${grader}`;
  }

  of(i) {
    return this.entries.get(DATA.items[i]) ?? EMPTY;
  }

  // Change an item's entry; `quiet` changes (typing) join the step before them when it is the same item's.
  set(i, change, quiet = false) {
    this.apply([[DATA.items[i], { ...this.of(i), ...change, time: new Date().toISOString() }]], quiet);
  }

  apply(changes, quiet = false) {
    const before = changes.map(([item]) => [item, this.entries.get(item), quiet]);
    const last = this.steps.at(-1);
    const joins = quiet && last?.length === 1 && last[0][2] && last[0][0] === changes[0][0];
    if (!joins) this.steps.push(before);
    for (const [item, entry] of changes) this.entries.set(item, entry);
    this.keep();
  }

  // Take back the last step; return the index of the item it was about, or null when there is none.
  undo() {
    const step = this.steps.pop();
    if (!step) return null;
    for (const [item, entry] of step) {
      if (entry) this.entries.set(item, entry);
      else this.entries.delete(item);
    }
    this.keep();
    return INDEX.get(step[0][0]);
  }

  // Another grader's sheet. Grades given before a name was typed go along to a name that has none.
  rename(grader) {
    const nameless = this.grader === '' ? this.entries : new Map();
    const from = this.grader;
    this.grader = grader;
    this.load();
    if (nameless.size && !this.entries.size) {
      this.entries = nameless;
      if (this.keep()) localStorage.removeItem(this.key(from));
    }
    this.write(`${PLACE}/last`, grader);
  }

  graded() {
    let n = 0;
    for (const entry of this.entries.values()) n += entry.grade !== '';
    return n;
  }

  keep() {
    return this.write(this.key(this.grader), Object.fromEntries(this.entries));
  }

  read(key, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }

  write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      this.complain('This browser does not keep your grades: export them before you leave the page.');
      return false;
    }
  }
}
