// lowContrast runs in the page, and returns the texts with a contrast below 4.5 (WCAG 2.2, 1.4.3).
export function lowContrast() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixel = (...colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) {
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (e) => {
    const colors = [];
    for (; e; e = e.parentElement) colors.unshift(getComputedStyle(e).backgroundColor);
    return colors;
  };
  const low = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.checkVisibility() || e.closest("noscript, .hidden, option, dialog, .skip")) continue;
    const background = behind(e);
    const [a, b] = [luminance(pixel(...background, getComputedStyle(e).color)), luminance(pixel(...background))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) low.add(`${texts.currentNode.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return [...low];
}
