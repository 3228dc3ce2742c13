// Which words of two texts differ: a longest common subsequence by Myers' algorithm. Pure: texts in, numbers out.

// One character where a script has no spaces between words.
const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}_'’]+|\S/gu;
const MOST_EDITS = 1_000; // beyond, two texts have little in common, and finding out how little takes seconds

/** The words of a text: [{ word, start, end }]; spaces do not count. */
export function wordsOf(text) {
  return Array.from(text.matchAll(WORD), (match) => ({
    word: match[0],
    start: match.index,
    end: match.index + match[0].length,
  }));
}

/** The indices of the words of `a` and of `b` that are not common to both: [Set, Set]. */
export function differing(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let [endOfA, endOfB] = [a.length, b.length];
  while (endOfA > start && endOfB > start && a[endOfA - 1] === b[endOfB - 1]) [endOfA, endOfB] = [endOfA - 1, endOfB - 1];
  const [middleOfA, middleOfB] = [a.slice(start, endOfA), b.slice(start, endOfB)];
  const [onlyA, onlyB] = edits(middleOfA, middleOfB) ?? [absentFrom(middleOfB, middleOfA), absentFrom(middleOfA, middleOfB)];
  return [new Set(onlyA.map((index) => index + start)), new Set(onlyB.map((index) => index + start))];
}

/** Myers 1986, "An O(ND) difference algorithm": what to take out of a and out of b; null beyond MOST_EDITS. */
function edits(a, b) {
  const furthest = new Map([[1, 0]]); // on diagonal k = x - y, the furthest x that this many edits reach
  const rounds = [];
  for (let num = 0; num <= Math.min(a.length + b.length, MOST_EDITS); num += 1) {
    rounds.push(new Map(furthest));
    for (let k = -num; k <= num; k += 2) {
      let x = comesDown(furthest, k, num) ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return walkBack(rounds, a.length, b.length);
    }
  }
  return null;
}

const comesDown = (furthest, k, num) => k === -num || (k !== num && furthest.get(k - 1) < furthest.get(k + 1));

function walkBack(rounds, x, y) {
  const [onlyA, onlyB] = [[], []];
  for (let num = rounds.length - 1; num > 0; num -= 1) {
    const k = x - y;
    const isDown = comesDown(rounds[num], k, num);
    const from = isDown ? k + 1 : k - 1;
    x = rounds[num].get(from);
    y = x - from;
    if (isDown) onlyB.push(y);
    else onlyA.push(x);
  }
  return [onlyA, onlyB];
}

/** The indices of the words that the other text has nowhere. */
function absentFrom(other, words) {
  const known = new Set(other);
  return words.flatMap((word, index) => (known.has(word) ? [] : [index]));
}
