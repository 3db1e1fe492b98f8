// Places the nodes of a graph without cycles in layers, inputs above those that they feed. An edge over several layers gets a place in each
// of them, so that it runs between nodes, not behind them.

const SWEEPS = 6;

function ranks(inputs) {
  const rank = [];
  const of = (id) => (rank[id] ??= Math.max(-1, ...inputs[id].map(of)) + 1);
  inputs.forEach((_, id) => of(id));
  return rank;
}

// `inputs`: for each node the nodes that feed it. `sizes`: `{ width, gap, height, drop, lane }`.
export function layers(inputs, { width, gap, height, drop, lane }) {
  const rank = ranks(inputs);
  const nodes = inputs.map((_, id) => ({ id, rank: rank[id], up: [], down: [], width }));
  const edges = [];
  inputs.forEach((all, to) => all.forEach((from) => {
    const path = [nodes[from]];
    for (let between = rank[from] + 1; between < rank[to]; between += 1) {
      const bend = { rank: between, up: [], down: [], width: lane };
      nodes.push(bend);
      path.push(bend);
    }
    path.push(nodes[to]);
    path.slice(1).forEach((node, i) => {
      node.up.push(path[i]);
      path[i].down.push(node);
    });
    edges.push({ from, to, path });
  }));
  const all = [];
  nodes.forEach((node) => (all[node.rank] ??= []).push(node));
  const number = (layer) => layer.forEach((node, i) => (node.order = i));
  all.forEach(number);
  // Each node near the middle of those that it is joined with, from above, then from below, and again.
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2 ? "down" : "up";
    const from = sweep % 2 ? [...all].reverse() : all;
    from.forEach((layer) => {
      layer.forEach((node) => {
        const near = node[side];
        node.wish = near.length ? near.reduce((sum, other) => sum + other.order / Math.max(1, all[other.rank].length - 1), 0) / near.length : node.order / Math.max(1, layer.length - 1);
      });
      layer.sort((a, b) => a.wish - b.wish);
      number(layer);
    });
  }
  const apart = (left, right) => (left.width + right.width) / 2 + gap;
  const mean = (list, of) => list.reduce((sum, node) => sum + of(node), 0) / list.length;
  all.forEach((layer) => {
    const whole = layer.reduce((sum, node, i) => (node.x = i ? sum + apart(layer[i - 1], node) : 0), 0);
    layer.forEach((node) => (node.x -= whole / 2));
  });
  // Then each as near as the others of its layer let it: the mean of what is packed from the left and from the right keeps them apart, too.
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    (sweep % 2 ? [...all].reverse() : all).forEach((layer) => {
      const wishes = layer.map((node) => (node.up.length + node.down.length ? mean([...node.up, ...node.down], ({ x }) => x) : node.x));
      const left = [];
      const right = [];
      layer.forEach((node, i) => (left[i] = i ? Math.max(wishes[i], left[i - 1] + apart(layer[i - 1], node)) : wishes[i]));
      for (let i = layer.length - 1; i >= 0; i -= 1) right[i] = i < layer.length - 1 ? Math.min(wishes[i], right[i + 1] - apart(layer[i], layer[i + 1])) : wishes[i];
      layer.forEach((node, i) => (node.x = (left[i] + right[i]) / 2));
    });
  }
  const least = Math.min(...nodes.map((node) => node.x - node.width / 2));
  nodes.forEach((node) => {
    node.x -= least;
    node.y = node.rank * (height + drop);
  });
  const whole = Math.max(...nodes.map((node) => node.x + node.width / 2));
  return { nodes: nodes.slice(0, inputs.length), edges, width: whole, height: all.length * (height + drop) - drop };
}
