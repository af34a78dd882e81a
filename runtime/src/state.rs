//! State: the tensors that live from one step to the next (parameters, optimizer slots, the step
//! counter). One buffer, laid out once; every function of a module works on the same layout.

use crate::error::RuntimeError;
use crate::memory::{ALIGNMENT, AlignedBuffer};
use crate::value::{Element, Value, with_type};
use graphc_ir::{DType, TensorType, checked_product};
use std::collections::HashMap;
use std::sync::Arc;

/// One tensor of the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateEntry {
    /// Unique name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub dims: Vec<usize>,
    /// Offset from the base of the state in bytes, a multiple of [`ALIGNMENT`].
    pub offset: usize,
}

impl StateEntry {
    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.num_elements() * self.dtype.size_bytes()
    }

    /// Type of the tensor.
    pub fn tensor_type(&self) -> TensorType {
        TensorType::new(self.dtype, self.dims.as_slice())
    }
}

/// Where each tensor of a state is. Entries keep the order given, do not overlap and start at
/// multiples of [`ALIGNMENT`]. Layouts are equal when their entries are.
#[derive(Clone, Debug, Default)]
pub struct StateLayout {
    entries: Vec<StateEntry>,
    bytes: usize,
    by_name: HashMap<String, usize>,
}

impl StateLayout {
    /// Lays out entries of these names, element types and extents.
    ///
    /// # Errors
    /// [`RuntimeError::DuplicateState`] and [`RuntimeError::StateTooLarge`].
    pub fn new(entries: impl IntoIterator<Item = (String, DType, Vec<usize>)>) -> Result<Self, RuntimeError> {
        let mut layout = Self::default();
        for (name, dtype, dims) in entries {
            let offset = layout.bytes;
            let end = checked_product(&dims)
                .and_then(|n| n.checked_mul(dtype.size_bytes()))
                .and_then(|n| n.checked_next_multiple_of(ALIGNMENT))
                .and_then(|n| n.checked_add(offset))
                .filter(|&n| isize::try_from(n).is_ok());
            let Some(end) = end else {
                let ty = Box::new(TensorType::new(dtype, dims.as_slice()));
                return Err(RuntimeError::StateTooLarge { name: name.into(), ty });
            };
            if layout.by_name.insert(name.clone(), layout.entries.len()).is_some() {
                return Err(RuntimeError::DuplicateState { name: name.into() });
            }
            layout.entries.push(StateEntry { name, dtype, dims, offset });
            layout.bytes = end;
        }
        Ok(layout)
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[StateEntry] {
        &self.entries
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<&StateEntry> {
        self.by_name.get(name).map(|&i| &self.entries[i])
    }

    /// Position of the entry of that name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Size of the state in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first difference from `got`, for an error message.
    pub(crate) fn difference(&self, got: &Self) -> Option<String> {
        let describe = |e: Option<&StateEntry>| match e {
            Some(e) => format!("`{}` {}", e.name, e.tensor_type()),
            None => "no entry".to_owned(),
        };
        let n = self.entries.len().max(got.entries.len());
        (0..n)
            .map(|i| (i, self.entries.get(i), got.entries.get(i)))
            .find(|(_, a, b)| a != b)
            .map(|(i, a, b)| format!("entry {i}: expected {}, got {}", describe(a), describe(b)))
    }
}

impl PartialEq for StateLayout {
    fn eq(&self, other: &Self) -> bool {
        // Size and names index follow from the entries.
        self.entries == other.entries
    }
}

impl Eq for StateLayout {}

/// The values of all state entries. A bool is a byte 0 or 1, always: only safe code here and
/// generated code, which promises it, write them.
#[derive(Debug)]
pub struct State {
    layout: Arc<StateLayout>,
    buffer: AlignedBuffer,
}

impl State {
    /// All entries zero (`false`).
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn zeros(layout: Arc<StateLayout>) -> Result<Self, RuntimeError> {
        let buffer = AlignedBuffer::zeroed(layout.bytes, "the state")?;
        Ok(Self { layout, buffer })
    }

    /// A copy in memory of its own.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn try_clone(&self) -> Result<Self, RuntimeError> {
        let buffer = AlignedBuffer::from_bytes(self.buffer.as_slice(), "a copy of the state")?;
        Ok(Self { layout: Arc::clone(&self.layout), buffer })
    }

    /// The layout.
    pub fn layout(&self) -> &Arc<StateLayout> {
        &self.layout
    }

    /// Names of the entries, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layout.entries.iter().map(|e| e.name.as_str())
    }

    /// Entries with their values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&StateEntry, Value<'_>)> {
        self.layout.entries.iter().map(|e| (e, self.value_of(e)))
    }

    /// The value of an entry, whatever its element type.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownState`].
    pub fn value(&self, name: &str) -> Result<Value<'_>, RuntimeError> {
        Ok(self.value_of(find(&self.layout, name)?))
    }

    /// The elements of an entry, row-major.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownState`]; [`RuntimeError::StateType`] if its element type is not `T`.
    pub fn get<T: Element>(&self, name: &str) -> Result<&[T], RuntimeError> {
        let entry = find_typed(&self.layout, name, T::DTYPE)?;
        // SAFETY: `find_typed` checked that the entry's element type is T.
        Ok(unsafe { self.slice(entry) })
    }

    /// The elements of an entry, row-major, to be changed.
    ///
    /// # Errors
    /// As [`State::get`].
    pub fn get_mut<T: Element>(&mut self, name: &str) -> Result<&mut [T], RuntimeError> {
        let entry = find_typed(&self.layout, name, T::DTYPE)?;
        let base = self.buffer.as_mut_ptr();
        // SAFETY: the layout puts this entry in the buffer, aligned to 64 bytes, and its element
        // type is T; the bytes are initialized and, for bool, 0 or 1; the borrow of `self` is
        // exclusive.
        Ok(unsafe { std::slice::from_raw_parts_mut(base.add(entry.offset).cast(), entry.num_elements()) })
    }

    /// Overwrites an entry.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownState`]; [`RuntimeError::StateType`] if element type or number of
    /// elements differ.
    pub fn copy_from<'a>(&mut self, name: &str, value: impl Into<Value<'a>>) -> Result<(), RuntimeError> {
        let value = value.into();
        let entry = find(&self.layout, name)?;
        if entry.dtype != value.dtype() || entry.num_elements() != value.len() {
            return Err(RuntimeError::StateType {
                name: name.into(),
                expected: Box::new(entry.tensor_type()),
                got_dtype: value.dtype(),
                got_elements: Some(value.len()),
            });
        }
        let (offset, bytes) = (entry.offset, value.as_bytes());
        self.buffer.as_mut_slice()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.buffer.as_mut_ptr()
    }

    fn value_of(&self, entry: &StateEntry) -> Value<'_> {
        // SAFETY: the entry's element type is that of the slice.
        unsafe { with_type!(entry.dtype, T => T::value(self.slice(entry))) }
    }

    /// # Safety
    /// `entry` is of this layout and its element type is `T`.
    unsafe fn slice<T: Element>(&self, entry: &StateEntry) -> &[T] {
        let base = self.buffer.as_ptr();
        // SAFETY: the layout puts the entry in the buffer, aligned to 64 bytes; the bytes are
        // initialized and, for bool, 0 or 1.
        unsafe { std::slice::from_raw_parts(base.add(entry.offset).cast(), entry.num_elements()) }
    }
}

fn find<'a>(layout: &'a StateLayout, name: &str) -> Result<&'a StateEntry, RuntimeError> {
    layout.get(name).ok_or_else(|| RuntimeError::UnknownState { name: name.into() })
}

fn find_typed<'a>(layout: &'a StateLayout, name: &str, dtype: DType) -> Result<&'a StateEntry, RuntimeError> {
    let entry = find(layout, name)?;
    if entry.dtype != dtype {
        return Err(RuntimeError::StateType {
            name: name.into(),
            expected: Box::new(entry.tensor_type()),
            got_dtype: dtype,
            got_elements: None,
        });
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Arc<StateLayout> {
        Arc::new(
            StateLayout::new([
                ("w".to_owned(), DType::F32, vec![3, 7]),
                ("empty".to_owned(), DType::F64, vec![0, 4]),
                ("mask".to_owned(), DType::Bool, vec![65]),
                ("step".to_owned(), DType::I64, vec![]),
            ])
            .unwrap(),
        )
    }

    #[test]
    fn entries_are_aligned_and_disjoint() {
        let layout = layout();
        let offsets: Vec<_> = layout.entries().iter().map(|e| e.offset).collect();
        assert_eq!(offsets, [0, 128, 128, 256]);
        assert_eq!(layout.bytes(), 320);
        assert_eq!(layout.get("step").unwrap().num_elements(), 1);
        assert_eq!(layout.index_of("mask"), Some(2));
    }

    #[test]
    fn values_round_trip() {
        let mut state = State::zeros(layout()).unwrap();
        assert!(state.get::<f32>("w").unwrap().iter().all(|&x| x == 0.0));
        state.get_mut::<f32>("w").unwrap()[20] = 2.5;
        state.get_mut::<bool>("mask").unwrap()[64] = true;
        state.copy_from("step", &41i64).unwrap();
        let copy = state.try_clone().unwrap();
        drop(state);
        assert_eq!(copy.get::<f32>("w").unwrap()[20], 2.5);
        assert!(copy.get::<bool>("mask").unwrap()[64]);
        assert_eq!(copy.value("step").unwrap(), Value::I64(&[41]));
        assert_eq!(copy.names().collect::<Vec<_>>(), ["w", "empty", "mask", "step"]);
        assert_eq!(
            copy.iter().map(|(e, v)| (e.dtype == v.dtype(), v.len())).collect::<Vec<_>>(),
            [(true, 21), (true, 0), (true, 65), (true, 1)]
        );
    }

    #[test]
    fn errors_name_the_entry_and_both_types() {
        let check = |result: Result<(), RuntimeError>, message: &str| {
            assert_eq!(result.unwrap_err().to_string(), message);
        };
        let mut state = State::zeros(layout()).unwrap();
        check(state.get::<f64>("w").map(drop), "state `w`: expected f32[3, 7] (21 elements), got f64");
        check(state.get_mut::<i32>("step").map(drop), "state `step`: expected i64[] (1 element), got i32");
        check(state.get::<f32>("v").map(drop), "the state has no entry `v`");
        check(
            state.copy_from("w", &[1.0f32, 2.0]),
            "state `w`: expected f32[3, 7] (21 elements), got 2 elements of f32",
        );
        let entry = |name: &str, dims: &[usize]| (name.to_owned(), DType::F32, dims.to_vec());
        check(
            StateLayout::new([entry("a", &[1]), entry("a", &[2])]).map(drop),
            "two state entries are named `a`",
        );
        check(
            StateLayout::new([entry("a", &[1 << 40, 2])]).map(drop),
            "state `a` of type f32[1099511627776, 2] makes the state too large",
        );
    }

    #[test]
    fn layouts_compare_by_entries() {
        assert_eq!(layout(), layout());
        let other = StateLayout::new([("w".to_owned(), DType::F32, vec![3, 8])]).unwrap();
        assert_eq!(
            layout().difference(&other).unwrap(),
            "entry 0: expected `w` f32[3, 7], got `w` f32[3, 8]"
        );
        assert_eq!(
            other.difference(&StateLayout::default()).unwrap(),
            "entry 0: expected `w` f32[3, 8], got no entry"
        );
    }
}
