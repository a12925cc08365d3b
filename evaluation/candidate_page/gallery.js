// The gallery: of any number of candidates, only the cards in sight (and two rows around) are in the document.

const GAP = 10;
const SPARE_ROWS = 2;

class Gallery {
  constructor(scroller, holder, makeCard) {
    Object.assign(this, { scroller, holder, makeCard, order: [], cards: new Map(), many: false });
    scroller.addEventListener('scroll', () => this.soon(), { passive: true });
    new ResizeObserver(() => {
      this.measure();
      this.refresh();
    }).observe(scroller);
    this.measure();
  }

  measure() {
    const width = this.scroller.clientWidth - 2 * GAP;
    const wanted = this.many ? Math.min(width, 560) : width < 480 ? 150 : 190;
    this.columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
    this.cardWidth = Math.floor((width + GAP) / this.columns) - GAP;
    this.panelColumns = this.many ? Math.min(PANELS.size, this.cardWidth < 480 ? 3 : 6) : 1;
    const rows = this.many ? Math.ceil(PANELS.size / this.panelColumns) : 1;
    this.cardHeight = Math.round((rows * this.cardWidth) / this.panelColumns) + (DATA.blind ? 26 : 44);
  }

  show(order, many) {
    this.order = order;
    if (many !== this.many) {
      this.many = many;
      this.measure();
    }
    this.refresh();
  }

  // Make every card in sight anew.
  refresh() {
    this.cards.clear();
    this.holder.replaceChildren();
    const rows = Math.ceil(this.order.length / this.columns);
    this.holder.style.height = `${rows * (this.cardHeight + GAP) + GAP}px`;
    this.holder.style.setProperty('--panel-columns', this.panelColumns);
    this.paint();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    const step = this.cardHeight + GAP;
    const top = Math.floor(this.scroller.scrollTop / step) - SPARE_ROWS;
    const bottom = Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / step) + SPARE_ROWS;
    const first = Math.max(0, top * this.columns);
    const last = Math.min(this.order.length, bottom * this.columns);
    for (const [place, element] of this.cards) {
      if (place < first || place >= last) {
        element.remove();
        this.cards.delete(place);
      }
    }
    for (let place = first; place < last; place++) if (!this.cards.has(place)) this.put(place);
  }

  put(place) {
    const element = this.makeCard(this.order[place]);
    const [row, column] = [Math.floor(place / this.columns), place % this.columns];
    element.style.width = `${this.cardWidth}px`;
    element.style.height = `${this.cardHeight}px`;
    element.style.transform = `translate(${GAP + column * (this.cardWidth + GAP)}px, ${GAP + row * (this.cardHeight + GAP)}px)`;
    this.cards.get(place)?.remove();
    this.cards.set(place, element);
    this.holder.append(element);
  }

  // Make one card anew, where it is in sight.
  update(place) {
    if (this.cards.has(place)) this.put(place);
  }

  // Scroll so that a card is in sight.
  reveal(place) {
    const step = this.cardHeight + GAP;
    const top = Math.floor(place / this.columns) * step;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + step + GAP > this.scroller.scrollTop + this.scroller.clientHeight) {
      this.scroller.scrollTop = top + step + GAP - this.scroller.clientHeight;
    }
    this.paint();
  }
}
