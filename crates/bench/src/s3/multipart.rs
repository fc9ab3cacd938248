//! Multipart uploads: until they become one object, parts are kept as objects of a bucket that no
//! request can name. It must not know of faults.

use super::Shared;
use super::body::Frames;
use super::message::{Answer, Error, Request, respond};
use super::objects::Condition;

/// Answers a request that has `uploads` or `uploadId` in its query.
pub(super) fn answer(shared: &Shared, request: Request) -> Answer {
    let id = request.parameter("uploadId").unwrap_or("").to_owned();
    // No request can name this bucket, since a bucket's name cannot contain a slash.
    let parts = format!("{}/uploads", request.bucket);
    match (request.method.as_str(), request.parameter("partNumber")) {
        ("POST", _) if id.is_empty() => start(shared, &parts, &request),
        ("PUT", Some(number)) => {
            let Ok(number) = number.parse::<u16>() else {
                return Error::MALFORMED.answer();
            };
            let part = part_name(&id, number);
            put_part(shared, &parts, &id, &part, request).unwrap_or_else(Error::answer)
        }
        ("POST", _) => complete(shared, &parts, &id, &request).unwrap_or_else(Error::answer),
        ("DELETE", _) => {
            forget(shared, &parts, &id);
            respond(204, &[], Frames::default())
        }
        _ => Error::NOT_IMPLEMENTED.answer(),
    }
}

fn part_name(id: &str, number: u16) -> String {
    format!("{id}/{number:05}")
}

fn start(shared: &Shared, parts: &str, request: &Request) -> Answer {
    let id = format!("{:032x}", host::rng::nonce());
    // An upload exists as long as the object named by its id.
    let made = shared
        .objects()
        .put(parts, &id, Vec::new(), &Condition::Absent);
    if let Err(refusal) = made {
        return Error::from(refusal).answer();
    }
    let (bucket, key) = (&request.bucket, &request.key);
    let text = format!(
        "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>\
         <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    );
    respond(
        200,
        &[("content-type", "application/xml")],
        Frames::text(text),
    )
}

fn put_part(
    shared: &Shared,
    parts: &str,
    id: &str,
    part: &str,
    request: Request,
) -> Result<Answer, Error> {
    let mut objects = shared.objects();
    if objects.get(parts, id).is_none() {
        return Err(Error::NO_SUCH_UPLOAD);
    }
    let etag = objects.put(parts, part, request.frames, &Condition::None)?;
    let etag = format!("\"{etag}\"");
    Ok(respond(200, &[("etag", &etag)], Frames::default()))
}

fn complete(shared: &Shared, parts: &str, id: &str, request: &Request) -> Result<Answer, Error> {
    let condition = request.condition()?;
    let body = request.frames.concat();
    let text = std::str::from_utf8(&body).map_err(|_| Error::MALFORMED)?;
    let objects = shared.objects();
    if objects.get(parts, id).is_none() {
        return Err(Error::NO_SUCH_UPLOAD);
    }
    let mut frames = Vec::new();
    for part in text.split("<PartNumber>").skip(1) {
        let number = part
            .split_once("</PartNumber>")
            .map(|(number, _)| number.parse::<u16>());
        let Some(Ok(number)) = number else {
            return Err(Error::MALFORMED);
        };
        let part = objects.get(parts, &part_name(id, number));
        let part = part.ok_or(Error {
            status: 400,
            code: "InvalidPart",
        })?;
        frames.extend(part.frames.iter().cloned());
    }
    drop(objects);
    // The parts are removed before the whole is stored, so that their bytes are not counted twice.
    forget(shared, parts, id);
    let (bucket, key) = (&request.bucket, &request.key);
    let etag = shared.objects().put(bucket, key, frames, &condition)?;
    let text = format!(
        "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>\
         <ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
    );
    Ok(respond(
        200,
        &[("content-type", "application/xml")],
        Frames::text(text),
    ))
}

fn forget(shared: &Shared, parts: &str, id: &str) {
    let mut objects = shared.objects();
    let names: Vec<String> = objects
        .from(parts, std::ops::Bound::Included(id))
        .take_while(|(name, _)| name.starts_with(id))
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in names {
        objects.delete(parts, &name);
    }
}
