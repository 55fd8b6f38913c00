//! What stands in the attribute's parentheses, and in `#[shape(..)]`.

use proc_macro2::Ident;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, ExprPath, LitInt, LitStr, Result, Token, bracketed};

/// `#[function(init = path, output = [..], outputs = [..], inputs = [..])]`
#[derive(Default)]
pub struct Options {
    pub init: Option<ExprPath>,
    pub output: Option<(Ident, Shape)>,
    pub outputs: Option<(Ident, Vec<Named>)>,
    pub inputs: Option<(Ident, Vec<Named>)>,
}

/// Sizes, outermost first; `None` is `_`.
#[derive(Clone)]
pub struct Shape(pub Vec<Option<LitInt>>);

/// `label: i64[_, 4]`
pub struct Named {
    pub name: String,
    /// The variant of `DType`.
    pub dtype: Ident,
    pub shape: Shape,
}

impl Parse for Options {
    fn parse(input: ParseStream) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let key: Ident = input.call(Ident::parse_any)?;
            input.parse::<Token![=]>()?;
            let again = match key.to_string().as_str() {
                "init" => options.init.replace(input.parse()?).is_some(),
                "output" => options
                    .output
                    .replace((key.clone(), sizes(input)?))
                    .is_some(),
                "outputs" => options
                    .outputs
                    .replace((key.clone(), named(input)?))
                    .is_some(),
                "inputs" => options
                    .inputs
                    .replace((key.clone(), named(input)?))
                    .is_some(),
                other => {
                    let message = format!(
                        "there is no option `{other}`; expected `init`, `output`, `outputs` or `inputs`"
                    );
                    return Err(Error::new(key.span(), message));
                }
            };
            if again {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if let (Some(_), Some((key, _))) = (&options.output, &options.outputs) {
            return Err(Error::new(
                key.span(),
                "give `output` or `outputs`, not both",
            ));
        }
        Ok(options)
    }
}

/// `[_, 4]`
fn sizes(input: ParseStream) -> Result<Shape> {
    let inside;
    bracketed!(inside in input);
    inside.parse()
}

/// `[label: i64[_], "score.1": f32[_, 4]]`
fn named(input: ParseStream) -> Result<Vec<Named>> {
    let inside;
    bracketed!(inside in input);
    Ok(Punctuated::<Named, Token![,]>::parse_terminated(&inside)?
        .into_iter()
        .collect())
}

impl Parse for Named {
    fn parse(input: ParseStream) -> Result<Self> {
        let name = if input.peek(LitStr) {
            input.parse::<LitStr>()?.value()
        } else {
            input.call(Ident::parse_any)?.unraw().to_string()
        };
        input.parse::<Token![:]>()?;
        let dtype: Ident = input.parse()?;
        let dtype = match dtype.to_string().as_str() {
            "bool" | "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f16"
            | "bf16" | "f32" | "f64" => Ident::new(&dtype.to_string().to_uppercase(), dtype.span()),
            "bytes" => Ident::new("Bytes", dtype.span()),
            other => {
                let message = format!(
                    "there is no dtype `{other}`; expected f32, f64, f16, bf16, i8, i16, i32, i64, u8, u16, u32, u64, bool or bytes"
                );
                return Err(Error::new(dtype.span(), message));
            }
        };
        let dtype = if dtype == "BOOL" {
            Ident::new("Bool", dtype.span())
        } else {
            dtype
        };
        Ok(Self {
            name,
            dtype,
            shape: sizes(input)?,
        })
    }
}

impl Parse for Shape {
    fn parse(input: ParseStream) -> Result<Self> {
        let size = |input: ParseStream| -> Result<Option<LitInt>> {
            if input.parse::<Option<Token![_]>>()?.is_some() {
                return Ok(None);
            }
            let size: LitInt = input
                .parse()
                .map_err(|error| Error::new(error.span(), "expected a size, or `_` for any"))?;
            size.base10_parse::<u32>()?;
            if !size.suffix().is_empty() {
                return Err(Error::new(size.span(), "a size has no suffix"));
            }
            Ok(Some(size))
        };
        Ok(Self(
            Punctuated::<_, Token![,]>::parse_terminated_with(input, size)?
                .into_iter()
                .collect(),
        ))
    }
}
