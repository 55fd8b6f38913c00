//! What the models are made for, from the examples' own samples and by the examples' own code.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use file_type::window;
use firebox_engine::{Tensor, Tensors};
use firebox_tests::binary::{target, workspace};
use page_orientation::picture;
use sentence_embedding::{batch::Batch, tokenizer::Tokenizer};
use voice_activity::wav;

/// Inputs of each model that differ from each other.
pub const EACH: usize = 5;

/// Item number `at` of a batch that begins with sample `first`, which goes round.
fn rows<T>(first: usize, batch: usize, sample: impl Fn(usize) -> Vec<T>) -> Vec<T> {
    (first..first + batch).flat_map(sample).collect()
}

fn samples(example: &str) -> PathBuf {
    workspace().join("examples").join(example).join("samples")
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> (String, Tensor) {
    let made = Tensor::from_f32(shape.to_vec(), values);
    (name.to_owned(), made.unwrap())
}

/// Files of several kinds, as `file-type` shows them to magika.
pub fn files(first: usize, batch: usize) -> Tensors {
    static FILES: LazyLock<Vec<Vec<i32>>> = LazyLock::new(|| {
        let config = fs::read(target().join("models/magika.config.json")).unwrap();
        let sizes: window::Sizes = serde_json::from_slice(&config).unwrap();
        let names = ["primes.py", "readme.md", "ring.rs", "rings.png", "shop.sql"];
        let read = |name| fs::read(samples("file-type").join(name)).unwrap();
        let each = names.map(|name| window::of(&read(name), &sizes).unwrap());
        each.into()
    });
    let values = rows(first, batch, |at| FILES[at % EACH].clone());
    let made = Tensor::from_i32(vec![batch, values.len() / batch], &values);
    vec![("bytes".into(), made.unwrap())]
}

/// Sentences of several lengths, as `sentence-embedding` shows them to MiniLM.
pub fn sentences(first: usize, batch: usize) -> Tensors {
    const TEXTS: [&str; EACH] = [
        "A cat sits on the mat.",
        "A kitten rests on a rug.",
        "The stock market crashed today, and nobody on the floor could say for how long.",
        "¿Dónde está la estación de tren?",
        "Bring to the boil, then simmer for twenty minutes, stirring now and again.",
    ];
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let vocabulary = fs::read_to_string(target().join("models/minilm.vocab.txt"));
        Tokenizer::new(&vocabulary.unwrap()).unwrap()
    });
    let tokens = (first..first + batch).map(|at| TOKENIZER.encode(TEXTS[at % EACH]));
    let inputs = Batch::new(&tokens.collect::<Vec<_>>()).inputs().unwrap();
    let each = inputs.map(|(name, tensor)| {
        let made = Tensor::from_i64(tensor.shape().to_vec(), tensor.data());
        (name.to_owned(), made.unwrap())
    });
    each.into()
}

/// Windows of two spoken sentences at 16 kHz, a second apart or nearly so.
pub fn speech(first: usize, batch: usize) -> Tensors {
    const WINDOW: usize = 576;
    static SPOKEN: LazyLock<Vec<f32>> = LazyLock::new(|| {
        let file = fs::read(samples("voice-activity").join("two-sentences.wav")).unwrap();
        wav::read(&file).unwrap().samples
    });
    let values = rows(first, batch, |at| {
        let start = (at % EACH) * (SPOKEN.len() - WINDOW) / EACH;
        SPOKEN[start..start + WINDOW].to_vec()
    });
    vec![
        f32s("input", &[batch, WINDOW], &values),
        f32s("state", &[2, batch, 128], &vec![0.0; 2 * batch * 128]),
        ("sr".into(), Tensor::from_i64(vec![], &[16000]).unwrap()),
    ]
}

/// Pages of text, turned by quarters, and one with its colours reversed, as `page-orientation`
/// shows them to its model.
pub fn pages(first: usize, batch: usize) -> Tensors {
    static PAGES: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
        let names = [
            "upright.png",
            "turned-90.png",
            "turned-180.png",
            "turned-270.jpg",
        ];
        let read = |name| fs::read(samples("page-orientation").join(name)).unwrap();
        let mut pages = names
            .map(|name| picture::decode(&read(name)).unwrap())
            .to_vec();
        let mut reversed = pages[0].clone();
        reversed.iter_mut().for_each(|shade| *shade = 255 - *shade);
        pages.push(reversed);
        pages.iter().map(picture::middle).collect()
    });
    let side = picture::SIDE as usize;
    let values = rows(first, batch, |at| PAGES[at % EACH].clone());
    vec![f32s("x", &[batch, 3, side, side], &values)]
}

/// Lines cut from pages of text, 48 high, from -1 to 1.
pub fn lines(first: usize, batch: usize) -> Tensors {
    const SIZE: [usize; 2] = [48, 192];
    static PAGE: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
        let read = |name| fs::read(samples("page-orientation").join(name)).unwrap();
        let pages = ["upright.png", "turned-180.png"].map(|name| picture::decode(&read(name)));
        let pages = pages.map(Result::unwrap);
        let line = |at: usize| {
            let (page, top) = (&pages[at % 2], 110 + 90 * at as u32);
            let grey = |y: usize, x: usize| {
                let pixel = page.get_pixel(60 + 2 * x as u32, top + y as u32);
                f32::from(pixel.0[0]) / 127.5 - 1.0
            };
            let plane = (0..SIZE[0]).flat_map(|y| (0..SIZE[1]).map(move |x| (y, x)));
            let plane: Vec<_> = plane.map(|(y, x)| grey(y, x)).collect();
            plane.repeat(3)
        };
        (0..EACH).map(line).collect()
    });
    let values = rows(first, batch, |at| PAGE[at % EACH].clone());
    vec![f32s("x", &[batch, 3, SIZE[0], SIZE[1]], &values)]
}
