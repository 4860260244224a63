/** The menu of renditions: what plays, and what the viewer wants. */
import { byTestId, setText } from '../ui/dom.js';
import { icon } from '../ui/icons.js';
import { layerName, rateName, sizeName, type Layer } from '../wire/layers.js';
import type { Chosen } from './chosen.js';

/** Room that the menu leaves above and below itself, in pixels. */
const MARGIN = 68;

export class QualityMenu {
  private readonly box: HTMLElement;
  private readonly button: HTMLElement;
  private readonly menu: HTMLElement;
  private layers: Layer[] = [];

  constructor(private readonly root: HTMLElement, private readonly video: HTMLVideoElement, private readonly chosen: Chosen) {
    this.box = root.querySelector('[data-part="quality"]') as HTMLElement;
    this.button = byTestId('quality', root);
    this.menu = byTestId('quality-menu', root);
    this.button.addEventListener('click', () => this.toggle());
    this.button.addEventListener('keydown', (e) => this.onButtonKey(e));
    this.menu.addEventListener('keydown', (e) => this.onMenuKey(e));
    this.menu.addEventListener('click', (e) => this.onPick(e));
    // Whoever goes elsewhere has done with it.
    document.addEventListener('pointerdown', (e) => void (this.box.contains(e.target as Node) || this.close(false)));
    this.box.addEventListener('focusout', (e) => void (this.box.contains(e.relatedTarget as Node | null) || this.close(false)));
    document.addEventListener('keydown', (e) => this.onKey(e));
    for (const e of ['resize', 'loadedmetadata', 'emptied']) video.addEventListener(e, () => this.draw());
    chosen.onChange(() => this.draw(), new AbortController().signal);
  }

  setLayers(layers: Layer[]): void {
    this.layers = layers;
    this.box.hidden = layers.length < 2;
    if (this.box.hidden) this.close(false);
    this.draw();
  }

  private get open(): boolean {
    return !this.menu.hidden;
  }

  /** The rendition that the viewer wants in any case, if there is it. */
  private get pinned(): Layer | undefined {
    return this.layers.find((l) => l.rid === this.chosen.selection.rid);
  }

  private draw(): void {
    const playing = sizeName(this.video.videoWidth, this.video.videoHeight);
    const auto = playing === '' ? 'Auto' : `Auto (${playing})`;
    const pinned = this.pinned;
    const shown = pinned === undefined ? auto : layerName(pinned);
    setText(this.button.querySelector('[data-part="quality-now"]') as Element, shown);
    this.button.setAttribute('aria-label', `Quality: ${shown}`);
    const items = [
      { rid: '', name: pinned === undefined ? auto : 'Auto', rate: '' },
      ...this.layers.map((l) => ({ rid: l.rid, name: layerName(l), rate: rateName(l.bitrate) })),
    ];
    // The elements stay while the menu is open: the focus is on one of them.
    while (this.menu.children.length > items.length) this.menu.lastElementChild?.remove();
    while (this.menu.children.length < items.length) this.menu.append(item());
    items.forEach(({ rid, name, rate }, i) => {
      const el = this.menu.children[i] as HTMLElement;
      el.dataset['rid'] = rid;
      el.setAttribute('aria-checked', String(rid === (pinned?.rid ?? '')));
      setText(el.querySelector('[data-part="name"]') as Element, name);
      setText(el.querySelector('[data-part="rate"]') as Element, rate);
    });
  }

  private toggle(): void {
    if (this.open) this.close(true);
    else this.show();
  }

  private show(at: 'checked' | 'last' = 'checked'): void {
    this.menu.hidden = false;
    this.menu.style.maxHeight = `${Math.max(96, this.root.clientHeight - MARGIN)}px`;
    this.button.setAttribute('aria-expanded', 'true');
    const checked = this.menu.querySelector<HTMLElement>('[aria-checked="true"]');
    ((at === 'last' ? this.menu.lastElementChild : checked) as HTMLElement | null)?.focus();
  }

  private close(refocus: boolean): void {
    if (!this.open) return;
    this.menu.hidden = true;
    this.button.setAttribute('aria-expanded', 'false');
    if (refocus) this.button.focus();
  }

  private onPick(e: MouseEvent): void {
    const el = (e.target as Element).closest<HTMLElement>('[role="menuitemradio"]');
    if (el === null) return;
    this.chosen.set({ rid: el.dataset['rid'] ?? '' });
    this.close(true);
  }

  private onButtonKey(e: KeyboardEvent): void {
    if (e.key !== 'ArrowUp' && e.key !== 'ArrowDown') return;
    e.preventDefault();
    this.show(e.key === 'ArrowUp' ? 'last' : 'checked');
  }

  /** The keys of a menu (WAI-ARIA menu button pattern). */
  private onMenuKey(e: KeyboardEvent): void {
    const items = [...this.menu.children] as HTMLElement[];
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
    const next = to[e.key];
    if (next !== undefined) items[(next + items.length) % items.length]?.focus();
    else if (e.key === 'Escape') this.close(true);
    else if (e.key === 'Tab') return this.close(false);
    else return;
    e.preventDefault();
  }

  private onKey(e: KeyboardEvent): void {
    if (e.key.toLowerCase() !== 'q' || e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || this.box.hidden) return;
    if (e.target instanceof HTMLElement && ['TEXTAREA', 'SELECT'].includes(e.target.tagName)) return;
    e.preventDefault();
    this.toggle();
  }
}

function item(): HTMLElement {
  const el = document.createElement('button');
  el.type = 'button';
  el.tabIndex = -1;
  el.setAttribute('role', 'menuitemradio');
  el.innerHTML = `<span class="tick">${icon('check')}</span><span data-part="name"></span><span class="rate" data-part="rate"></span>`;
  return el;
}
