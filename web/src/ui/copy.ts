/** A button that copies a text and says so. */
import { setIcon, type IconName } from './icons.js';

export function bindCopyButton(button: HTMLElement, text: () => string): void {
  const mark = button.querySelector('[data-icon]');
  const words = button.querySelector('[data-words]');
  const before = words?.textContent ?? '';
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = (name: IconName, label: string): void => {
    if (mark !== null) setIcon(mark, name);
    if (words !== null) words.textContent = label;
  };
  button.addEventListener('click', async () => {
    const ok = await copy(text());
    show(ok ? 'check' : 'copy', ok ? 'Copied' : 'Press Ctrl C');
    clearTimeout(timer);
    timer = setTimeout(() => show('copy', before), 2000);
  });
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // pages over plain http have no clipboard
  }
}

function copyBySelection(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'visually-hidden';
  document.body.append(area);
  area.select();
  const ok = document.execCommand('copy');
  area.remove();
  return ok;
}
