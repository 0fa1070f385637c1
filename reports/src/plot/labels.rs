//! Where to write the name of a point: of many places around it, the one that hides least.

/// A position in logical pixels, x then y.
pub(super) type Point = (f64, f64);

/// A text to be placed: the point it names and its width and height.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub at: Point,
    pub size: (f64, f64),
}

/// An axis-parallel box in logical pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Area {
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    pub fn contains(&self, (x, y): Point) -> bool {
        self.left <= x && x <= self.right && self.top <= y && y <= self.bottom
    }

    pub fn grown(&self, by: f64) -> Area {
        Area {
            left: self.left - by,
            top: self.top - by,
            right: self.right + by,
            bottom: self.bottom + by,
        }
    }

    fn overlaps(&self, other: &Area) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn encloses(&self, other: &Area) -> bool {
        self.left <= other.left
            && other.right <= self.right
            && self.top <= other.top
            && other.bottom <= self.bottom
    }

    /// The point of the box that is nearest to another.
    pub fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (
            x.clamp(self.left, self.right),
            y.clamp(self.top, self.bottom),
        )
    }
}

/// What a label should not cover.
#[derive(Debug, Clone, Default)]
pub(super) struct Obstacles {
    /// Dots, and lines as rows of dots.
    pub dots: Vec<Point>,
    /// Texts, which weigh much more.
    pub texts: Vec<Area>,
}

impl Obstacles {
    /// Adds a line as dots 10 pixels apart.
    pub fn add_line(&mut self, points: &[(f64, f64)]) {
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let steps = ((to.0 - from.0).hypot(to.1 - from.1) / 10.0)
                .ceil()
                .clamp(1.0, 500.0);
            for step in 0..=steps as usize {
                let way = step as f64 / steps;
                self.dots.push((
                    from.0 + (to.0 - from.0) * way,
                    from.1 + (to.1 - from.1) * way,
                ));
            }
        }
    }

    /// How much a text in this box would hide.
    fn hidden_by(&self, area: &Area) -> f64 {
        let near = area.grown(8.0);
        let dots = self.dots.iter().filter(|&&dot| near.contains(dot)).count();
        let texts = self.texts.iter().filter(|text| near.overlaps(text)).count();
        dots as f64 + 1000.0 * texts as f64
    }

    /// How much a line from a point to its text would cross; what surrounds the point itself does not count.
    fn crossed_by(&self, from: (f64, f64), to: (f64, f64)) -> f64 {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let along = (3..(length / 8.0) as usize).map(|step| {
            let way = 8.0 * step as f64 / length;
            (
                from.0 + (to.0 - from.0) * way,
                from.1 + (to.1 - from.1) * way,
            )
        });
        let is_hit = |point: &(f64, f64)| {
            self.texts
                .iter()
                .any(|text| text.grown(4.0).contains(*point))
        };
        100.0 * along.filter(is_hit).count() as f64
    }

    /// The best place inside `bounds` for a text of this size near `at`, with its cost: little hidden first, then near.
    fn place(&self, at: (f64, f64), (width, height): (f64, f64), bounds: &Area) -> (Area, f64) {
        let around = (0..24).map(|step| f64::from(step) * std::f64::consts::TAU / 24.0);
        let candidates = around.flat_map(|angle| {
            [34.0, 60.0, 95.0, 140.0, 200.0, 280.0].map(|distance| (distance, angle.sin_cos()))
        });
        let boxed = candidates.map(|(distance, (sin, cos))| {
            // The box touches the circle of this distance with the side or corner that faces the point.
            let centre = (
                at.0 + cos * (distance + width / 2.0),
                at.1 + sin * (distance + height / 2.0),
            );
            let area = Area {
                left: centre.0 - width / 2.0,
                top: centre.1 - height / 2.0,
                right: centre.0 + width / 2.0,
                bottom: centre.1 + height / 2.0,
            };
            let outside = if bounds.encloses(&area) { 0.0 } else { 1e6 };
            let hidden = self.hidden_by(&area) + self.crossed_by(at, area.nearest(at));
            (area, outside + hidden + distance / 40.0)
        });
        boxed
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("there are candidates")
    }

    /// Places for several texts. They are placed one after the other; up to four
    /// in the best of all orders, more in the order given.
    pub fn place_all(&self, texts: &[Wanted], bounds: &Area) -> Vec<Area> {
        let indices: Vec<usize> = (0..texts.len()).collect();
        let orders = if texts.len() <= 4 {
            permutations(&indices)
        } else {
            vec![indices]
        };
        let placed = orders
            .iter()
            .map(|order| self.place_in_order(order, texts, bounds));
        placed
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("there is an order")
            .0
    }

    fn place_in_order(&self, order: &[usize], texts: &[Wanted], bounds: &Area) -> (Vec<Area>, f64) {
        let mut obstacles = self.clone();
        let mut places: Vec<Option<Area>> = vec![None; texts.len()];
        let mut total = 0.0;
        for &index in order {
            let Wanted { at, size } = texts[index];
            let (place, cost) = obstacles.place(at, size, bounds);
            total += cost;
            obstacles.texts.push(place);
            // What leads to the text should not be covered by the next one.
            obstacles.add_line(&[at, place.nearest(at)]);
            places[index] = Some(place);
        }
        (
            places
                .into_iter()
                .map(|place| place.expect("an order names every text"))
                .collect(),
            total,
        )
    }

    /// The least hiding of given places; the first of equals.
    pub fn best_of(&self, places: &[Area], bounds: &Area) -> usize {
        let cost =
            |area: &Area| self.hidden_by(area) + if bounds.encloses(area) { 0.0 } else { 1e6 };
        (0..places.len())
            .min_by(|&a, &b| cost(&places[a]).total_cmp(&cost(&places[b])))
            .expect("there is a place")
    }
}

/// All orders of a few things.
fn permutations(things: &[usize]) -> Vec<Vec<usize>> {
    if things.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for &first in things {
        let others: Vec<usize> = things
            .iter()
            .copied()
            .filter(|&thing| thing != first)
            .collect();
        for mut order in permutations(&others) {
            order.insert(0, first);
            orders.push(order);
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Area = Area {
        left: 0.0,
        top: 0.0,
        right: 1000.0,
        bottom: 600.0,
    };

    #[test]
    fn a_label_avoids_points_texts_and_the_border() {
        // Everything above y = 300 is full of dots, one text lies to the lower right.
        let dots =
            (0..100).flat_map(|x| (0..30).map(move |y| (f64::from(x) * 10.0, f64::from(y) * 10.0)));
        let mut obstacles = Obstacles {
            dots: dots.collect(),
            texts: Vec::new(),
        };
        obstacles.texts.push(Area {
            left: 520.0,
            top: 320.0,
            right: 1000.0,
            bottom: 600.0,
        });
        let place = obstacles.place_all(
            &[Wanted {
                at: (500.0, 295.0),
                size: (200.0, 60.0),
            }],
            &BOUNDS,
        )[0];
        assert!(BOUNDS.encloses(&place), "{place:?}");
        assert!(place.top > 300.0 && place.right < 520.0, "{place:?}");
    }

    #[test]
    fn a_point_in_a_corner_has_its_label_inside() {
        for corner in [(0.0, 0.0), (1000.0, 0.0), (0.0, 600.0), (1000.0, 600.0)] {
            let place = Obstacles::default().place(corner, (300.0, 80.0), &BOUNDS).0;
            assert!(BOUNDS.encloses(&place), "{corner:?}");
        }
    }
}
