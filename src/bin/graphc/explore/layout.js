// Runs in a worker: positions of boxes and edges, by dagre.
onmessage = ({ data: { id, boxes, groups, edges } }) => {
  const g = new dagre.graphlib.Graph({ compound: true });
  // The best ranks take long for large graphs.
  const ranker = boxes.length > 300 ? "longest-path" : boxes.length > 80 ? "tight-tree" : "network-simplex";
  g.setGraph({ rankdir: "TB", nodesep: 16, ranksep: 40, edgesep: 8, marginx: 24, marginy: 24, ranker });
  g.setDefaultEdgeLabel(() => ({}));
  for (const b of boxes) g.setNode(b.id, { width: b.w, height: b.h });
  for (const group of groups) g.setNode(group.id, {});
  for (const item of [...boxes, ...groups]) if (item.parent) g.setParent(item.id, item.parent);
  for (const [from, to] of edges) g.setEdge(from, to);
  dagre.layout(g);
  const place = (item) => {
    const n = g.node(item.id);
    return { id: item.id, x: n.x - n.width / 2, y: n.y - n.height / 2, w: n.width, h: n.height };
  };
  const { width, height } = g.graph();
  postMessage({
    id, width, height,
    boxes: boxes.map(place),
    groups: groups.map(place),
    edges: edges.map(([from, to]) => ({ from, to, points: g.edge(from, to).points })),
  });
};
