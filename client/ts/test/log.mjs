import assert from "node:assert/strict";

// Log notes what a room delivers and what it reports as lost. The data of each message is its offset.
export class Log {
  messages = 0;
  gaps = 0;
  #entries = [];
  #since;

  constructor(room, since) {
    this.#since = since;
    room.on("number", (data, { offset }) => {
      this.messages++;
      this.#entries.push({ from: offset, to: offset, data });
    });
    room.onGap((gap) => {
      this.gaps++;
      this.#entries.push({ from: gap.after + 1, to: gap.next - 1, gap });
    });
  }

  // check asserts that the entries tile the messages from the first position up to the head.
  check(head, name) {
    let at = this.#since?.offset ?? this.#entries[0].from - 1;
    for (const entry of this.#entries) {
      const text = `${name}: ${JSON.stringify(entry)} at ${at} of ${head.offset}`;
      assert.equal(entry.from, at + 1, text);
      assert.ok(entry.to >= entry.from, text);
      if (entry.gap) {
        assert.equal(entry.gap.epoch, head.epoch, text);
        assert.notEqual(entry.gap.reason, "unknown", text);
      } else assert.equal(entry.data, entry.from, text);
      at = entry.to;
    }
    assert.equal(at, head.offset, name);
  }
}
