// Grades as CSV, out and in. A cell that a spreadsheet would run gets a ' in front, which reading takes off again.

const CSV_COLUMNS = ['page', 'catalogue', 'grader', 'item', 'grade', 'theta_e_arcsec', 'notes', 'time'];
const RUNS = /^[=+\-@\t\r]/;

function csvCell(value) {
  const guarded = RUNS.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

function gradesToCsv(sheet) {
  const rows = [CSV_COLUMNS];
  for (const item of DATA.items) {
    const e = sheet.entries.get(item);
    if (e && (e.grade || e.notes || e.theta)) {
      rows.push([DATA.page, DATA.catalogue, sheet.grader, item, e.grade, e.theta, e.notes, e.time]);
    }
  }
  return rows.map((row) => row.map(csvCell).join(',')).join('\n') + '\n';
}

// Rows of cells (RFC 4180).
function parseCsv(text) {
  const rows = [];
  let row = [''];
  let quoted = false;
  for (let k = text.charCodeAt(0) === 0xfeff ? 1 : 0; k < text.length; k++) {
    const c = text[k];
    if (quoted) {
      if (c !== '"') row[row.length - 1] += c;
      else if (text[k + 1] === '"') row[row.length - 1] += text[++k];
      else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === ',') row.push('');
    else if (c === '\n') {
      rows.push(row);
      row = [''];
    } else if (c !== '\r') row[row.length - 1] += c;
  }
  if (quoted) throw new Error('a quotation mark is not closed; the file is cut off');
  if (row.length > 1 || row[0]) rows.push(row);
  return rows;
}

// Changes [item, entry] that a file of grades makes to a sheet: its later grades. Throws what is wrong with the file.
function gradesFromCsv(text, sheet) {
  const [header, ...rows] = parseCsv(text);
  const missing = CSV_COLUMNS.filter((name) => !header?.includes(name));
  if (missing.length) throw new Error(`it lacks the columns ${missing.join(', ')}; import a file this page exported`);
  const changes = new Map();
  for (const [k, cells] of rows.entries()) {
    const where = `row ${k + 2}`;
    if (cells.length !== header.length) throw new Error(`${where} has ${cells.length} cells, the header ${header.length}`);
    const plain = (cell) => (cell[0] === "'" && RUNS.test(cell.slice(1)) ? cell.slice(1) : cell);
    const row = Object.fromEntries(header.map((name, c) => [name, plain(cells[c])]));
    if (row.page !== DATA.page) {
      throw new Error(
        `${where} is of page ${row.page} of catalogue ${row.catalogue}; this is page ${DATA.page} of catalogue ${DATA.catalogue}`,
      );
    }
    if (!INDEX.has(row.item)) throw new Error(`${where}: item ${row.item} is not on this page`);
    if (row.grade && !DATA.grades.includes(row.grade)) throw new Error(`${where}: grade ${row.grade} is none of ${DATA.grades.join(', ')}`);
    if (row.grader !== sheet.grader) {
      throw new Error(`${where} is by ${row.grader || 'nobody'}, this sheet is ${sheet.grader || 'nobody'}'s: type that name as grader first`);
    }
    const have = changes.get(row.item) ?? sheet.entries.get(row.item) ?? EMPTY;
    if (row.time > have.time) changes.set(row.item, { grade: row.grade, notes: row.notes, theta: row.theta_e_arcsec, time: row.time });
  }
  return [...changes];
}
