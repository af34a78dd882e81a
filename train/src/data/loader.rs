//! Batches of a source, prepared by threads.

use super::{DataError, Field, Row, Source, permutation};
use graphc_runtime::{Elements, Value};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Cuts the rows of a source into batches, in an order that depends on the seed and the epoch alone, whatever the number of
/// threads.
///
/// ```
/// use graphc_train::data::{Loader, Table};
///
/// let table = Table::new().with("x", &[], (0..10).map(|i| i as f32).collect::<Vec<_>>())?;
/// let mut loader = Loader::new(table, 4).shuffled(42).workers(2);
/// for epoch in 0..3 {
///     loader.start(epoch);
///     let mut rows = 0;
///     while let Some(batch) = loader.next_batch()? {
///         // session.run("train_step", &batch.inputs())?
///         rows += batch.rows();
///     }
///     assert_eq!(rows, 10);
/// }
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub struct Loader {
    source: Arc<dyn Source>,
    fields: Vec<Field>,
    size: usize,
    order: Order,
    drop_last: bool,
    limit: usize,
    workers: usize,
    epoch: u64,
    /// Number of batches of this epoch given so far.
    position: usize,
    rows: Arc<Rows>,
    /// One per worker, for the epoch that is running.
    queues: Vec<Receiver<Result<Batch, DataError>>>,
    current: Option<Batch>,
}

/// In which order rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Source,
    Shuffled(u64),
    Blocks(u64, usize),
}

/// A batch. Its elements are inputs of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    names: Arc<Vec<String>>,
    columns: Vec<Elements>,
    rows: usize,
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns by name.
    pub fn inputs(&self) -> Vec<(&str, Value<'_>)> {
        self.names.iter().zip(&self.columns).map(|(n, c)| (n.as_str(), c.value())).collect()
    }

    /// A column, if there is one of that name and element type.
    pub fn get<T: graphc_runtime::Element>(&self, name: &str) -> Option<&[T]> {
        self.names.iter().position(|n| n == name).and_then(|i| self.columns[i].value().get())
    }
}

/// Batches that a worker may have ready.
const QUEUE: usize = 2;

impl Loader {
    /// Batches of `size` rows in the order of the source; the last may be smaller. Ready to give epoch 0.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn new(source: impl Source + 'static, size: usize) -> Self {
        Self::of(Arc::new(source), size)
    }

    /// As [`Loader::new`], of a source that others use as well.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn of(source: Arc<dyn Source>, size: usize) -> Self {
        assert!(size > 0, "a batch has at least one row");
        let fields = source.fields();
        let mut loader = Self {
            source,
            fields,
            size,
            order: Order::Source,
            drop_last: false,
            limit: usize::MAX,
            workers: 0,
            epoch: 0,
            position: 0,
            rows: Arc::new(Rows::All),
            queues: Vec::new(),
            current: None,
        };
        loader.start(0);
        loader
    }

    /// Rows in the order [`permutation`] of (`seed`, epoch).
    pub fn shuffled(self, seed: u64) -> Self {
        self.with(|l| l.order = Order::Shuffled(seed))
    }

    /// Blocks of `block` neighbouring rows in random order, and rows in random order within each block: for sources that are
    /// read best one after the other. A function of (`seed`, epoch) as well.
    ///
    /// # Panics
    /// If `block` is 0.
    pub fn shuffled_blocks(self, seed: u64, block: usize) -> Self {
        assert!(block > 0, "a block has at least one row");
        self.with(|l| l.order = Order::Blocks(seed, block))
    }

    /// Leaves out a last batch that is smaller than the others.
    pub fn drop_last(self) -> Self {
        self.with(|l| l.drop_last = true)
    }

    /// Ends each epoch after `batches` batches, where there are more: an epoch is then a sample of the rows, another one each time if
    /// they are shuffled.
    pub fn limit(self, batches: usize) -> Self {
        self.with(|l| l.limit = batches)
    }

    /// Prepares batches in `workers` threads; 0: in the caller's, when asked for.
    pub fn workers(self, workers: usize) -> Self {
        self.with(|l| l.workers = workers)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.start(0);
        self
    }

    /// The columns.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Number of rows of an epoch, those of a last batch left out included.
    pub fn rows(&self) -> usize {
        self.source.len()
    }

    /// Number of batches of an epoch.
    pub fn per_epoch(&self) -> usize {
        let n = self.source.len();
        let all = if self.drop_last { n / self.size } else { n.div_ceil(self.size) };
        all.min(self.limit)
    }

    /// Begins an epoch, whether or not the last one was read to its end.
    pub fn start(&mut self, epoch: u64) {
        self.seek(epoch, 0);
    }

    /// Goes to batch `position` of an epoch: what follows is what would have followed there.
    pub fn seek(&mut self, epoch: u64, position: usize) {
        self.stop();
        (self.epoch, self.position) = (epoch, position);
        let n = self.source.len();
        let mut order = Vec::new();
        self.rows = Arc::new(match self.order {
            Order::Source => Rows::All,
            Order::Shuffled(seed) => {
                permutation(seed, epoch, n, &mut order);
                Rows::Listed(order)
            }
            Order::Blocks(seed, block) => {
                permutation(seed, epoch, n.div_ceil(block), &mut order);
                Rows::Blocks { order, block, seed, epoch, n }
            }
        });
    }

    /// Epoch and number of the batch that comes next: what [`Loader::seek`] takes.
    pub fn position(&self) -> (u64, usize) {
        (self.epoch, self.position)
    }

    /// The next batch of the epoch, or `None` at its end.
    ///
    /// # Errors
    /// What the source says, and [`DataError::Worker`] if a thread cannot be started or panicked.
    pub fn next_batch(&mut self) -> Result<Option<&Batch>, DataError> {
        let batches = self.per_epoch();
        if self.position >= batches {
            self.stop();
            return Ok(None);
        }
        if self.workers == 0 {
            let made = self.maker().make(self.position, self.current.take())?;
            self.position += 1;
            return Ok(Some(self.current.insert(made)));
        }
        if self.queues.is_empty() {
            self.spawn(batches)?;
        }
        let queue = &self.queues[self.position % self.workers];
        let received = queue.recv().unwrap_or_else(|_| Err(DataError::Worker("it panicked".to_owned())));
        match received {
            Ok(batch) => {
                self.position += 1;
                Ok(Some(self.current.insert(batch)))
            }
            Err(error) => {
                self.stop();
                Err(error)
            }
        }
    }

    fn maker(&self) -> Maker {
        Maker {
            source: self.source.clone(),
            names: Arc::new(self.fields.iter().map(|f| f.name.clone()).collect()),
            fields: self.fields.clone(),
            rows: self.rows.clone(),
            size: self.size,
            seed: match self.order {
                Order::Source => 0,
                Order::Shuffled(seed) | Order::Blocks(seed, _) => seed,
            },
            epoch: self.epoch,
        }
    }

    /// Worker `w` makes batches `position + w`, `position + w + workers`, ...
    fn spawn(&mut self, batches: usize) -> Result<(), DataError> {
        let mut receivers: Vec<Option<_>> = (0..self.workers).map(|_| None).collect();
        for w in 0..self.workers {
            let (send, receive) = sync_channel(QUEUE);
            let (maker, first, step) = (self.maker(), self.position + w, self.workers);
            let work = move || {
                for i in (first..batches).step_by(step) {
                    let made = maker.make(i, None);
                    let failed = made.is_err();
                    // The loader may have gone on to another epoch.
                    if send.send(made).is_err() || failed {
                        return;
                    }
                }
            };
            let spawned = thread::Builder::new().name(format!("graphc-data-{w}")).spawn(work);
            spawned.map_err(|e| DataError::Worker(e.to_string()))?;
            receivers[(self.position + w) % self.workers] = Some(receive);
        }
        self.queues = receivers.into_iter().flatten().collect();
        Ok(())
    }

    /// Workers end when they find that no one takes what they make.
    fn stop(&mut self) {
        self.queues.clear();
    }
}

/// The rows of an epoch, in order.
enum Rows {
    /// As they are in the source.
    All,
    Listed(Vec<usize>),
    /// Blocks in this order, each in an order of its own, which is made when it is needed: what is kept does not grow with
    /// the number of rows, but with that of blocks.
    Blocks {
        order: Vec<usize>,
        block: usize,
        seed: u64,
        epoch: u64,
        n: usize,
    },
}

impl Rows {
    /// Row `i` of blocks. `known` is the block whose order is in `within`.
    fn at(&self, i: usize, known: &mut Option<usize>, within: &mut Vec<usize>) -> usize {
        let Self::Blocks { order, block, seed, epoch, n } = self else { return i };
        // The last block of the source may be smaller than the others; those after it begin earlier.
        let last = order.len() - 1;
        let small = n - last * block;
        let at_last = order.iter().position(|&b| b == last).unwrap_or(last) * block;
        let missing = if i < at_last + small { 0 } else { block - small };
        let (b, offset) = (order[(i + missing) / block], (i + missing) % block);
        if *known != Some(b) {
            permutation(
                seed.wrapping_add(1 + b as u64),
                *epoch,
                if b == last { small } else { *block },
                within,
            );
            *known = Some(b);
        }
        b * block + within[offset]
    }
}

/// What makes a batch.
struct Maker {
    source: Arc<dyn Source>,
    names: Arc<Vec<String>>,
    fields: Vec<Field>,
    rows: Arc<Rows>,
    size: usize,
    seed: u64,
    epoch: u64,
}

impl Maker {
    /// Batch `i` of the epoch, in the memory of `reuse` if that has its size.
    fn make(&self, i: usize, reuse: Option<Batch>) -> Result<Batch, DataError> {
        let begin = i * self.size;
        let rows = self.size.min(self.source.len() - begin);
        let fresh = || {
            let columns = self.fields.iter().map(|f| Elements::zeros(f.dtype, rows * f.row_len())).collect();
            Batch { names: self.names.clone(), columns, rows }
        };
        let mut batch = reuse.filter(|b| b.rows == rows).unwrap_or_else(fresh);
        let mut within = Vec::new();
        let mut block = None;
        for at in 0..rows {
            let index = match &*self.rows {
                Rows::All => begin + at,
                Rows::Listed(rows) => rows[begin + at],
                blocks @ Rows::Blocks { .. } => blocks.at(begin + at, &mut block, &mut within),
            };
            self.source.read(Row { index, seed: self.seed, epoch: self.epoch }, &mut batch.columns, at)?;
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Table;
    use graphc_ir::DType;

    fn table(n: usize) -> Table {
        Table::new().with("x", &[2], (0..2 * n).map(|i| i as f32).collect::<Vec<_>>()).unwrap()
    }

    fn epoch(loader: &mut Loader) -> Vec<Vec<f32>> {
        let mut batches = Vec::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            batches.push(batch.get::<f32>("x").unwrap().to_vec());
        }
        batches
    }

    #[test]
    fn the_order_does_not_depend_on_workers() {
        let of = |workers, make: fn(Loader) -> Loader| {
            let mut loader = make(Loader::new(table(23), 4)).workers(workers);
            let first = epoch(&mut loader);
            loader.start(1);
            [first, epoch(&mut loader)]
        };
        let orders: [fn(Loader) -> Loader; 4] =
            [|l| l, |l| l.shuffled(5), |l| l.shuffled_blocks(5, 6), |l| l.shuffled(5).drop_last()];
        for (i, make) in orders.into_iter().enumerate() {
            let expected = of(0, make);
            for workers in [1, 2, 3, 8] {
                assert_eq!(of(workers, make), expected, "order {i}, {workers} workers");
            }
            assert_eq!(expected[0] != expected[1], i > 0);
            let mut all: Vec<f32> = expected[0].concat();
            all.sort_by(f32::total_cmp);
            let n = if i == 3 { 20 } else { 23 };
            assert_eq!(all.len(), 2 * n);
            assert_eq!(expected[0].len(), if i == 3 { 5 } else { 6 });
            if i < 3 {
                assert_eq!(all, (0..46).map(|i| i as f32).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_limit_samples() {
        let mut loader = Loader::new(table(20), 4).shuffled(3).limit(2).workers(2);
        let first = epoch(&mut loader);
        loader.start(1);
        assert_eq!((first.len(), loader.per_epoch()), (2, 2));
        assert_ne!(first, epoch(&mut loader));
    }

    #[test]
    fn seeking_gives_what_would_have_followed() {
        for workers in [0, 2, 3] {
            let mut loader = Loader::new(table(30), 4).shuffled(9).workers(workers);
            loader.start(3);
            let all = epoch(&mut loader);
            for position in 0..=all.len() {
                loader.seek(3, position);
                assert_eq!(loader.position(), (3, position));
                assert_eq!(epoch(&mut loader), all[position..], "{workers} workers from {position}");
            }
        }
    }

    /// Rows that fail from some index on.
    struct Failing(bool);

    impl Source for Failing {
        fn len(&self) -> usize {
            10
        }

        fn fields(&self) -> Vec<Field> {
            vec![Field { name: "x".to_owned(), dtype: DType::F32, dims: vec![] }]
        }

        fn read(&self, row: Row, _: &mut [Elements], _: usize) -> Result<(), DataError> {
            match row.index {
                0..5 => Ok(()),
                _ if self.0 => panic!("a panic of the source"),
                i => Err(DataError::Column { column: "x".to_owned(), message: format!("row {i} is bad") }),
            }
        }
    }

    #[test]
    fn errors_of_workers_reach_the_caller() {
        for workers in [0, 1, 3] {
            let mut loader = Loader::new(Failing(false), 2).workers(workers);
            assert!(loader.next_batch().unwrap().is_some());
            assert!(loader.next_batch().unwrap().is_some());
            assert_eq!(loader.next_batch().unwrap_err().to_string(), "column `x`: row 5 is bad");
        }
        let mut loader = Loader::new(Failing(true), 5).workers(2);
        assert!(loader.next_batch().unwrap().is_some());
        assert_eq!(
            loader.next_batch().unwrap_err().to_string(),
            "a thread that prepares data failed: it panicked"
        );
    }
}
