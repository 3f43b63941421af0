//! How elements of tensors are stored (ggml).

/// A way of storing elements, by ggml's number of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TensorType(u32);

/// Number, name, elements of a block, bytes of a block.
const KNOWN: [(u32, &str, u64, u64); 32] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl TensorType {
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its name; ggml's number of it where it is not known.
    pub fn name(self) -> String {
        self.row().map_or_else(|| format!("type {}", self.0), |&(_, name, ..)| name.to_owned())
    }

    /// Elements of a block and bytes of a block, if the type is known.
    pub(super) fn layout(self) -> Option<(u64, u64)> {
        self.row().map(|&(_, _, elements, bytes)| (elements, bytes))
    }

    fn row(self) -> Option<&'static (u32, &'static str, u64, u64)> {
        KNOWN.iter().find(|(number, ..)| *number == self.0)
    }
}
