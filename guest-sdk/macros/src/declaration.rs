//! Reads a `fn` with its options, and refuses what can't be a function, at the
//! token that is wrong.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, FnArg, Item, ItemFn, Pat, PatType, Receiver, Result, ReturnType, Type};

use crate::options::{Options, Shape};

/// A `fn` that can be a function.
pub struct Declaration {
    pub options: Options,
    /// The `fn`, without `#[shape]`.
    pub function: ItemFn,
    /// `T` of the `&T` that comes first.
    pub state: Option<Type>,
    /// The others.
    pub arguments: Vec<Argument>,
    pub answer: Type,
}

/// One argument that is taken from the request.
pub struct Argument {
    pub name: String,
    pub ty: Type,
    pub shape: Option<Shape>,
}

pub fn read(options: Options, item: TokenStream) -> Result<Declaration> {
    let mut function = match syn::parse2(item)? {
        Item::Fn(function) => function,
        other => return Err(Error::new_spanned(other, "`#[function]` goes on a `fn`")),
    };
    refuse_what_cannot_be_called(&function)?;
    let answer = answer(&function, &options)?;
    let state = state(&function, &options)?;
    let mut arguments = Vec::new();
    for argument in function.sig.inputs.iter_mut().skip(state.is_some().into()) {
        arguments.push(argument_of(argument)?);
    }
    refuse_what_cannot_be_taken(&arguments, &options)?;
    Ok(Declaration {
        options,
        function,
        state,
        arguments,
        answer,
    })
}

/// The item of a refused declaration, without the attributes that only a
/// declaration understands.
pub fn without_shapes(item: TokenStream) -> TokenStream {
    let Ok(Item::Fn(mut function)) = syn::parse2(item.clone()) else {
        return item;
    };
    for argument in &mut function.sig.inputs {
        let (FnArg::Typed(PatType { attrs, .. }) | FnArg::Receiver(Receiver { attrs, .. })) =
            argument;
        attrs.retain(|attribute| !attribute.path().is_ident("shape"));
    }
    function.into_token_stream()
}

fn refuse_what_cannot_be_called(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let refuse = |token: &dyn ToTokens, why| Err(Error::new_spanned(token.to_token_stream(), why));
    if let Some(token) = &signature.asyncness {
        return refuse(
            token,
            "a function isn't async: models are run by plain calls",
        );
    }
    if let Some(token) = &signature.unsafety {
        return refuse(
            token,
            "a function is called by the host: it can't be unsafe",
        );
    }
    if let Some(abi) = &signature.abi {
        let why = "the host calls a function by its own interface: leave the ABI out";
        return refuse(abi, why);
    }
    if !signature.generics.params.is_empty() {
        let why = "the host can't choose type parameters: write the types out";
        return refuse(&signature.generics, why);
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        let why = "a function has no `self`: take state as `&T`, made by `init`";
        return refuse(receiver, why);
    }
    Ok(())
}

/// The state's type, where the first argument is a reference.
fn state(function: &ItemFn, options: &Options) -> Result<Option<Type>> {
    let types = function
        .sig
        .inputs
        .iter()
        .filter_map(|argument| match argument {
            FnArg::Typed(argument) => Some(&*argument.ty),
            FnArg::Receiver(_) => None,
        });
    let mut state = None;
    for (at, ty) in types.enumerate() {
        let Type::Reference(reference) = ty else {
            continue;
        };
        let inner = &*reference.elem;
        let why = match (at, inner) {
            _ if reference.mutability.is_some() => {
                "state is the same for every request: take `&T`".into()
            }
            (_, Type::Slice(_)) => "take the body as `Bytes`".into(),
            (_, inner) if last_name(inner) == "str" => "take the body as `String`".into(),
            (0, _) if options.init.is_some() => {
                state = Some(inner.clone());
                continue;
            }
            (0, _) => {
                "this is state, but nothing makes it: write `#[function(init = path)]` with a `fn() -> T`".into()
            }
            _ => String::from("only the first argument can be state; take the others by value"),
        };
        return Err(Error::new_spanned(ty, why));
    }
    if let (Some(init), None) = (&options.init, &state) {
        let why = "`init` makes a state that the function doesn't take: its first argument should be `&T`";
        return Err(Error::new_spanned(init, why));
    }
    Ok(state)
}

fn argument_of(argument: &mut FnArg) -> Result<Argument> {
    let FnArg::Typed(argument) = argument else {
        return Err(Error::new(argument.span(), "a function has no `self`"));
    };
    let mut shape = None;
    let mut kept = Vec::new();
    for attribute in std::mem::take(&mut argument.attrs) {
        if attribute.path().is_ident("shape") {
            shape = Some((attribute.span(), attribute.parse_args::<Shape>()?));
        } else {
            kept.push(attribute);
        }
    }
    argument.attrs = kept;
    let ty = (*argument.ty).clone();
    let is_tensor = last_name(&ty) == "Tensor";
    let name = match &*argument.pat {
        Pat::Ident(pattern) => pattern.ident.unraw().to_string(),
        pattern if is_tensor => {
            return Err(Error::new(
                pattern.span(),
                "a tensor is the input of its name: give it one",
            ));
        }
        _ => "body".into(),
    };
    match &shape {
        None if is_tensor => {
            let why = format!(
                "say the shape of `{name}`: write `#[shape(_, 4)]` before it, with a size or `_` for each dimension"
            );
            return Err(Error::new_spanned(ty, why));
        }
        Some((span, _))
            if matches!(
                last_name(&ty).as_str(),
                "Bytes" | "String" | "Json" | "Parameters" | "Request"
            ) =>
        {
            return Err(Error::new(*span, "only a `Tensor` has a shape"));
        }
        _ => {}
    }
    Ok(Argument {
        name,
        ty,
        shape: shape.map(|(_, shape)| shape),
    })
}

fn refuse_what_cannot_be_taken(arguments: &[Argument], options: &Options) -> Result<()> {
    let is =
        |argument: &&Argument, names: &[&str]| names.contains(&last_name(&argument.ty).as_str());
    let bodies = ["Bytes", "String", "Json"];
    if let Some(second) = arguments
        .iter()
        .filter(|argument| is(argument, &bodies))
        .nth(1)
    {
        return Err(Error::new_spanned(
            &second.ty,
            "a request has one body, and it is taken already",
        ));
    }
    let request = arguments.iter().find(|argument| is(argument, &["Request"]));
    if let (Some(_), Some(other)) = (
        request,
        arguments.iter().find(|other| !is(other, &["Request"])),
    ) {
        return Err(Error::new_spanned(
            &other.ty,
            "`Request` is everything: take this from it",
        ));
    }
    if let (None, Some((key, _))) = (request, &options.inputs) {
        let why =
            "`inputs` is for a function that takes `Request`; other arguments say what they are";
        return Err(Error::new(key.span(), why));
    }
    Ok(())
}

fn answer(function: &ItemFn, options: &Options) -> Result<Type> {
    let ReturnType::Type(_, ty) = &function.sig.output else {
        let why = "a function answers something: write `-> String`, `-> Json<T>`, `-> Tensor<T>` …";
        return Err(Error::new(function.sig.paren_token.span.close(), why));
    };
    let answered = match last_name(ty).as_str() {
        "Result" => first_parameter(ty)
            .map(|inner| last_name(&inner))
            .unwrap_or_default(),
        name => name.into(),
    };
    match answered.as_str() {
        "Tensor" if options.output.is_none() => {
            let why = "say the shape of the answer: `#[function(output = [_, 4])]`, with a size or `_` for each dimension";
            Err(Error::new_spanned(ty, why))
        }
        "Outputs" if options.outputs.is_none() => {
            let why = "say what the outputs are: `#[function(outputs = [label: i64[_], score: f32[_, 4]])]`";
            Err(Error::new_spanned(ty, why))
        }
        _ => match (&options.output, &options.outputs) {
            (Some((key, _)), _) if answered != "Tensor" => Err(Error::new(
                key.span(),
                "`output` is for a function that answers a `Tensor`",
            )),
            (_, Some((key, _))) if !matches!(answered.as_str(), "Outputs" | "Response") => {
                let why = "`outputs` is for a function that answers `Outputs` or `Response`";
                Err(Error::new(key.span(), why))
            }
            _ => Ok((**ty).clone()),
        },
    }
}

/// `Tensor` of `firebox_sdk::Tensor<f32>`; empty where the type isn't a path.
fn last_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .map(|segment| segment.ident.to_string()),
        _ => None,
    }
    .unwrap_or_default()
}

/// `T` of `Result<T, E>`.
fn first_parameter(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let syn::PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments
    else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    })
}
