// A program that is checked against the types which openapi-typescript makes of the document.
import type { components, paths } from "./api.js";

type Job = components["schemas"]["Job"];
type JobInput = components["schemas"]["JobInput"];
type Refusal = components["schemas"]["Error"];
type Jobs = paths["/v1/jobs"]["get"]["responses"][200]["content"]["application/json"];

export async function main(settings: { EASEL_URL: string; EASEL_API_KEY: string }) {
    async function call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
        const answer = await fetch(settings.EASEL_URL + path, {
            method,
            headers: { Authorization: `Bearer ${settings.EASEL_API_KEY}`, "Content-Type": "application/json" },
            body: body === undefined ? null : JSON.stringify(body),
        });
        return (await answer.json()) as Answer;
    }

    const input: JobInput = { prompt: "a red circle", size: "128x128", quality: "low", seed: null };
    let job = await call<Job>("POST", "/v1/jobs", input);
    while (job.finished_at === null) {
        await new Promise((wake) => setTimeout(wake, 200));
        job = await call<Job>("GET", `/v1/jobs/${job.id}`);
    }
    const jobs = await call<Jobs>("GET", "/v1/jobs");
    const refused = await call<Refusal>("GET", "/v1/jobs/00000000-0000-4000-8000-000000000000");
    return {
        id: job.id,
        status: job.status,
        images: job.images.length,
        listed: jobs.data.map((one) => one.id),
        refused: refused.error.code,
    };
}
