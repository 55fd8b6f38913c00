//! Writes what a declaration stands for: the `fn` itself, a type of its name
//! that is a `Function`, and on wasm the component's exports.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::declaration::Declaration;
use crate::options::{Named, Shape};

pub fn expand(declaration: &Declaration) -> TokenStream {
    let Declaration {
        options,
        function,
        state,
        arguments,
        answer,
    } = declaration;
    let (name, visibility) = (&function.sig.ident, &function.vis);

    let describe_inputs = match &options.inputs {
        Some((_, inputs)) => {
            let inputs = inputs.iter().map(named);
            quote!(::std::vec![#(#inputs),*])
        }
        None => {
            let specs = arguments.iter().map(|argument| {
                let (name, ty, shape) = (&argument.name, &argument.ty, option(&argument.shape.as_ref().map(shape)));
                quote_spanned!(ty.span()=> <#ty as ::firebox_sdk::Argument>::describe(#name, #shape))
            });
            quote!({
                let specs: ::std::vec::Vec<::std::option::Option<::firebox_sdk::TensorSpec>> =
                    ::std::vec![#(#specs),*];
                specs.into_iter().flatten().collect()
            })
        }
    };
    let output = option(&options.output.as_ref().map(|(_, sizes)| shape(sizes)));
    let outputs = option(&options.outputs.as_ref().map(|(_, outputs)| {
        let outputs = outputs.iter().map(named);
        quote!(::std::vec![#(#outputs),*])
    }));
    let taken = arguments.iter().map(|argument| {
        let (name, ty) = (&argument.name, &argument.ty);
        quote_spanned!(ty.span()=> <#ty as ::firebox_sdk::Argument>::take(#name, &mut request)?)
    });
    let answer_as = quote_spanned!(answer.span()=> <#answer as ::firebox_sdk::Answer>);

    let (state, init, called) = match (state, &options.init) {
        (Some(ty), Some(init)) => {
            let made =
                quote_spanned!(init.span()=> ::firebox_sdk::MakesState::<#ty>::state(#init()));
            (
                quote! {
                    ::std::thread_local! {
                        static STATE: ::std::cell::OnceCell<#ty> = const { ::std::cell::OnceCell::new() };
                    }
                    fn with_state<R>(using: impl FnOnce(&#ty) -> R) -> R {
                        STATE.with(|state| using(state.get_or_init(|| #made)))
                    }
                },
                quote!(with_state(|_| ());),
                quote!(with_state(|state| #answer_as::into_response(#name(state, #(#taken),*)))),
            )
        }
        _ => (
            quote!(),
            quote!(),
            quote!(#answer_as::into_response(#name(#(#taken),*))),
        ),
    };

    quote! {
        #function

        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code)]
        #visibility struct #name {}

        const _: () = {
            #state

            impl ::firebox_sdk::Function for #name {
                #[allow(dead_code)]
                fn init() {
                    #init
                }

                fn signature() -> ::firebox_sdk::Signature {
                    let declared = ::firebox_sdk::Declared { output: #output, outputs: #outputs };
                    ::firebox_sdk::Signature {
                        inputs: #describe_inputs,
                        outputs: #answer_as::describe(declared),
                    }
                }

                #[allow(dead_code, unused_mut, unused_variables)]
                fn infer(mut request: ::firebox_sdk::Request) -> ::firebox_sdk::Result<::firebox_sdk::Response> {
                    #called
                }
            }

            #[cfg(target_family = "wasm")]
            type Exports = ::firebox_sdk::__host::Exports<#name>;
            #[cfg(target_family = "wasm")]
            ::firebox_sdk::__host::bindings::export_function!(
                Exports with_types_in ::firebox_sdk::__host::bindings
            );
        };
    }
}

/// A value of `firebox_sdk::Shape`.
fn shape(shape: &Shape) -> TokenStream {
    let sizes = shape
        .0
        .iter()
        .map(|size| option(&size.as_ref().map(|size| quote!(#size))));
    quote!(::std::vec![#(#sizes),*])
}

/// A value of `firebox_sdk::TensorSpec`.
fn named(
    Named {
        name,
        dtype,
        shape: sizes,
    }: &Named,
) -> TokenStream {
    let shape = shape(sizes);
    quote!(::firebox_sdk::TensorSpec {
        name: #name.into(),
        dtype: ::firebox_sdk::DType::#dtype,
        shape: #shape,
    })
}

fn option(value: &Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::std::option::Option::Some(#value)),
        None => quote!(::std::option::Option::None),
    }
}
