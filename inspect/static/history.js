import { WINDOW } from "./chart.js";

const SMOOTH = 2500; // a rate of now is the average over at least this time

// History holds the counters of the last five minutes, as api/history gives them.
export class History {
  series = [];
  points = []; // [at, value of each series...]

  get last() {
    return this.points.at(-1)?.[0] ?? 0;
  }

  add({ series, points }) {
    if (JSON.stringify(series) !== JSON.stringify(this.series)) {
      this.series = series ?? [];
      this.points = [];
    }
    for (const point of points) {
      if (point[0] <= this.last) continue;
      const before = this.points.at(-1);
      if (before?.some((value, i) => i > 0 && value > point[i])) this.points = []; // the server has started again
      this.points.push(point);
    }
    this.points = this.points.filter(([at]) => at >= this.last - WINDOW);
  }

  find(name) {
    return this.series.map((s, i) => ({ ...s, place: i + 1 })).filter((s) => s.name === name);
  }

  // rates are those of the counter at that place, between each two points.
  rates(place) {
    return this.points.slice(1).map((point, i) => {
      const before = this.points[i];
      return { at: point[0], since: before[0], value: (1000 * (point[place] - before[place])) / (point[0] - before[0]) };
    });
  }

  // total is the growth of the counter in these minutes.
  total(place) {
    return this.points.length ? this.points.at(-1)[place] - this.points[0][place] : 0;
  }

  // now is the present rate of the counters of that name together.
  now(name, include = () => true) {
    const point = this.points.at(-1);
    const before = this.points.findLast(([at]) => at <= this.last - SMOOTH) ?? this.points[0];
    if (!point || before === point) return 0;
    const sum = (p) => this.find(name).filter(include).reduce((n, { place }) => n + p[place], 0);
    return (1000 * (sum(point) - sum(before))) / (point[0] - before[0]);
  }
}
