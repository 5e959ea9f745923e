//! Usage that an answer reports.

/// Tokens of a call. Every dialect reports them in its own shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Input, the cached included.
    pub input: u64,
    /// Of the input, from a cache.
    pub cached: u64,
    /// Output, the reasoning included.
    pub output: u64,
    /// Of the output, reasoning. Anthropic's dialect does not say it.
    pub reasoning: u64,
}

impl Default for Figures {
    /// What is reported if the text says nothing else.
    fn default() -> Self {
        Self { input: 1000, cached: 200, output: 50, reasoning: 5 }
    }
}

impl Figures {
    /// Reads `input,cached,output,reasoning`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let numbers = text.split(',').map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
        let [input, cached, output, reasoning] = numbers.try_into().ok()?;
        (cached <= input && reasoning <= output).then_some(Self { input, cached, output, reasoning })
    }
}
