//! The `#[function]` attribute of firebox-sdk.

mod declaration;
mod expand;
mod options;

use proc_macro::TokenStream;

/// Makes a `fn` the function of this component.
///
/// Options, all left out where they aren't needed:
/// - `init = path`: a `fn() -> T` or `fn() -> Result<T>` that runs once, at
///   upload; the function takes what it made as `&T`, first.
/// - `output = [_, 384]`: the shape of the `Tensor` that the function answers.
/// - `outputs = [label: i64[_], "score.1": f32[_, 4]]`: the `Outputs` that it answers.
/// - `inputs = [..]`, written as `outputs`: what a function takes that has a `Request`.
///
/// `#[shape(1, 3, _, _)]` before a `Tensor` argument declares its shape; `_` is
/// a size that may differ from call to call.
#[proc_macro_attribute]
pub fn function(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(options as options::Options);
    let item = proc_macro2::TokenStream::from(item);
    match declaration::read(options, item.clone()) {
        Ok(declaration) => expand::expand(&declaration).into(),
        // The item stays, so that its uses don't fail as well.
        Err(error) => {
            let error = error.into_compile_error();
            let item = declaration::without_shapes(item);
            quote::quote!(#error #item).into()
        }
    }
}
