//! Strongly connected components by Tarjan's algorithm (SIAM J. Comput. 1(2), 1972), without recursion.
//!
//! Must not know what the nodes stand for.

/// Components of more than one node of the graph `edges[node] = successors`.
pub(super) fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let count = edges.len();
    let (mut number, mut low) = (vec![UNSEEN; count], vec![0; count]);
    let mut open = vec![false; count];
    let mut stack = Vec::new();
    let mut found = Vec::new();
    let mut next = 0;
    let mut path: Vec<(usize, usize)> = Vec::new();
    for root in 0..count {
        if number[root] != UNSEEN {
            continue;
        }
        path.push((root, 0));
        while let Some((node, edge)) = path.pop() {
            if edge == 0 {
                (number[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                open[node] = true;
            }
            if let Some(&to) = edges[node].get(edge) {
                path.push((node, edge + 1));
                if number[to] == UNSEEN {
                    path.push((to, 0));
                } else if open[to] {
                    low[node] = low[node].min(number[to]);
                }
                continue;
            }
            if let Some(&(parent, _)) = path.last() {
                low[parent] = low[parent].min(low[node]);
            }
            if low[node] == number[node] {
                let start = stack.iter().rposition(|&at| at == node).unwrap_or(0);
                let component = stack.split_off(start);
                for &member in &component {
                    open[member] = false;
                }
                if component.len() > 1 {
                    found.push(component);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::cycles;

    #[test]
    fn finds_each_circle_once_and_nothing_in_a_dag() {
        let graph = vec![vec![1], vec![2], vec![0, 3], vec![4], vec![3, 5], vec![]];
        let mut found: Vec<Vec<usize>> = cycles(&graph)
            .into_iter()
            .map(|mut component| {
                component.sort_unstable();
                component
            })
            .collect();
        found.sort();
        assert_eq!(found, [vec![0, 1, 2], vec![3, 4]]);
        assert!(cycles(&[vec![1, 2], vec![2], vec![]]).is_empty());
    }
}
