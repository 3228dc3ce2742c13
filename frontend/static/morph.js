// Makes a part of the page like a fresh copy of it and touches only what differs: whatever stays the same keeps its
// focus, its scroll position, its selected text and its animation.

export function morph(part, fresh) {
  let place = 0;
  for (const wanted of [...fresh.childNodes]) {
    const there = part.childNodes[place];
    const own = there && isSame(there, wanted) ? there : laterSibling(there, wanted);
    if (own) {
      // What stands before it goes: an element that is itself moved would lose its focus.
      while (part.childNodes[place] !== own) part.childNodes[place].remove();
      become(own, wanted);
    } else part.insertBefore(wanted, there ?? null);
    place += 1;
  }
  while (part.childNodes.length > place) part.lastChild.remove();
}

const isSame = (one, other) => one.nodeName === other.nodeName && one.id === other.id;

function laterSibling(node, wanted) {
  if (wanted.nodeType !== Node.ELEMENT_NODE) return null;
  while (node && !(isSame(node, wanted) && node.className === wanted.className)) node = node.nextSibling;
  return node;
}

function become(node, wanted) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  if (node.isEqualNode(wanted)) return;
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  morph(node, wanted);
}
